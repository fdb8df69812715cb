/** The line at the bottom that says what went wrong, until it is dismissed or something works. */

const notice = document.getElementById('notice')

notice.querySelector('button').addEventListener('click', dismiss)

export function notify (text) {
  notice.hidden = false
  notice.querySelector('p').textContent = text
}

export function dismiss () {
  notice.hidden = true
}
