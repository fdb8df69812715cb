/** Notice at the bottom of the page: shows an error until it is dismissed or an action succeeds. */

const notice = document.getElementById('notice')

notice.querySelector('button').addEventListener('click', dismiss)

export function notify (text) {
  notice.hidden = false
  notice.querySelector('p').textContent = text
}

export function dismiss () {
  notice.hidden = true
}
