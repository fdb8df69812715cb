/** List on the screen, one row for each to-do. It does not know the server: actions of the visitor go to `act`. */

const template = document.getElementById('todo')

export class List {
  #root
  #act
  #rows = new Map()

  /** @param act `update(changes)` and `remove(todo)`; both resolve to whether they succeeded */
  constructor (root, act) {
    this.#root = root
    this.#act = act
  }

  get todos () {
    return [...this.#rows.values()].map((row) => row.todo)
  }

  /** Shows exactly these to-dos; a row that stays keeps its open editor. */
  replace (todos) {
    const kept = new Set(todos.map((todo) => todo.id))
    for (const id of this.#rows.keys()) if (!kept.has(id)) this.remove(id)
    for (const todo of todos) this.put(todo)
  }

  /** Shows a new or changed to-do. Repeating it has no effect. */
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
    // the keyboard focus moves to a neighbour instead of the top of the page
    const neighbour = row.element.nextElementSibling ?? row.element.previousElementSibling
    const focused = row.element.contains(document.activeElement)
    row.element.remove()
    if (focused) (neighbour?.querySelector('.tick') ?? document.getElementById('new-title')).focus()
  }

  /** Highlights the row of a to-do for a moment. */
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
    // while editing, the button saves: pressing it must not move the focus, because `blur` saves too
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
    // compared with the title at the start of editing: without a change here, changes of others stay
    if (this.#field.value === this.#field.defaultValue) return this.#close()

    this.#saving = true
    const worked = await this.#act.update({ id: this.todo.id, title: this.#field.value })
    this.#saving = false
    // a refused title stays in the field, so that the visitor can correct it
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

  /** Copies the field to the text beneath it, which gives the row its height. */
  #mirror () {
    this.#text.textContent = this.#field.value
  }
}
