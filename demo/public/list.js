/** The list on the screen, a row for each to-do. Knows nothing of the server: what a visitor does goes to `act`. */

const template = document.getElementById('todo')

export class List {
  #root
  #act
  #rows = new Map()

  /** @param act `update(changes)` and `remove(todo)`; both return whether it worked */
  constructor (root, act) {
    this.#root = root
    this.#act = act
  }

  get todos () {
    return [...this.#rows.values()].map((row) => row.todo)
  }

  /** Shows exactly these; rows that stay keep what is being edited in them. */
  replace (todos) {
    const kept = new Set(todos.map((todo) => todo.id))
    for (const id of this.#rows.keys()) if (!kept.has(id)) this.remove(id)
    for (const todo of todos) this.put(todo)
  }

  /** Shows a to-do that is new or has changed. Doing it twice is doing it once. */
  put (todo) {
    const row = this.#rows.get(todo.id)
    if (row !== undefined) return row.show(todo)

    const added = new Row(todo, this.#act)
    this.#rows.set(todo.id, added)
    const next = [...this.#root.children].find((element) => Number(element.dataset.id) > todo.id)
    this.#root.insertBefore(added.element, next ?? null)
  }

  remove (id) {
    const row = this.#rows.get(id)
    if (row === undefined) return
    this.#rows.delete(id)
    // keyboard users stay where they were
    const neighbour = row.element.nextElementSibling ?? row.element.previousElementSibling
    const focused = row.element.contains(document.activeElement)
    row.element.remove()
    if (focused) (neighbour?.querySelector('.tick') ?? document.getElementById('new-title')).focus()
  }

  /** Lights up the row of a to-do for a moment. */
  highlight (id) {
    this.#rows.get(id)?.highlight()
  }
}

class Row {
  element = template.content.cloneNode(true).firstElementChild
  #tick = this.element.querySelector('.tick')
  #text = this.element.querySelector('.title span')
  #field = this.element.querySelector('textarea')
  #edit = this.element.querySelector('.edit')
  #remove = this.element.querySelector('.remove')
  #act
  #saving = false

  constructor (todo, act) {
    this.#act = act
    this.element.dataset.id = todo.id
    this.#text.id = `todo-${todo.id}`
    this.#tick.setAttribute('aria-labelledby', this.#text.id)
    this.#tick.addEventListener('change', () => this.#toggle())
    this.#text.addEventListener('click', () => this.#open())
    this.#edit.addEventListener('click', () => this.#editing ? this.#save() : this.#open())
    // the pen has become a check mark: pressing it must not take the focus, which would save already
    this.#edit.addEventListener('mousedown', (event) => this.#editing && event.preventDefault())
    this.#remove.addEventListener('click', () => act.remove(this.todo))
    this.#field.addEventListener('input', () => this.#mirror())
    this.#field.addEventListener('blur', () => this.#save())
    this.#field.addEventListener('keydown', (event) => this.#key(event))
    this.show(todo)
  }

  /** @param todo what is in the database now */
  show (todo) {
    this.todo = todo
    this.#tick.checked = todo.done
    this.element.classList.toggle('done', todo.done)
    this.element.classList.toggle('editing', this.#editing)
    this.#edit.setAttribute('aria-label', `${this.#editing ? 'Save' : 'Edit'} “${todo.title}”`)
    this.#remove.setAttribute('aria-label', `Delete “${todo.title}”`)
    if (!this.#editing) this.#text.textContent = todo.title
  }

  highlight () {
    this.element.animate([{ backgroundColor: 'var(--news)' }, {}], 1600)
  }

  get #editing () {
    return !this.#field.hidden
  }

  async #toggle () {
    const worked = await this.#act.update({ id: this.todo.id, done: this.#tick.checked })
    if (!worked) this.show(this.todo)
  }

  #open () {
    const { title } = this.todo
    this.#field.value = this.#field.defaultValue = title
    this.#field.hidden = false
    this.#field.focus()
    this.#field.setSelectionRange(title.length, title.length)
    this.show(this.todo)
  }

  #key (event) {
    if (event.isComposing || (event.key !== 'Enter' && event.key !== 'Escape')) return
    event.preventDefault()
    if (event.key === 'Enter') this.#save()
    else this.#close()
  }

  async #save () {
    if (this.#saving || !this.#editing) return
    // compared with what it was when editing began: what others wrote meanwhile stays if nothing was typed here
    if (this.#field.value === this.#field.defaultValue) return this.#close()

    this.#saving = true
    const worked = await this.#act.update({ id: this.todo.id, title: this.#field.value })
    this.#saving = false
    // what was refused stays in the field, to be put right
    this.#field.setAttribute('aria-invalid', !worked)
    if (worked) this.#close()
  }

  #close () {
    const focused = document.activeElement === this.#field
    this.#field.hidden = true
    this.#field.removeAttribute('aria-invalid')
    this.show(this.todo)
    if (focused) this.#edit.focus()
  }

  /** The text lies under the field and has its size: what is typed there makes the row grow. */
  #mirror () {
    this.#text.textContent = this.#field.value
  }
}
