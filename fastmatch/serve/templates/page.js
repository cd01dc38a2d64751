// The page: views that ask the API and show what it says. Text goes into the document as text, never as html.
'use strict'
const view = document.getElementById('view')
const hasCatalogue = document.body.dataset.catalogue === 'yes'
const inputs = document.body.dataset.inputs.split(' ')

// --- small things

function make(name, given = {}, ...children) {
  const node = document.createElement(name)
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value)
    else if (key === 'class') node.className = value
    else node.setAttribute(key, value === true ? '' : value)
  }
  node.append(...children.filter(child => child !== null && child !== undefined))
  return node
}

class Refused extends Error {
  constructor(status, words) { super(words); this.status = status }
}

async function ask(path, options) {
  let answer
  try { answer = await fetch(path, options) } catch { throw new Refused(0, 'The service does not answer.') }
  const content = await answer.json().catch(() => ({}))
  if (answer.ok) return content
  throw new Refused(answer.status, content.detail || `The service answers with ${answer.status}.`)
}

const get = (path, given = {}) => ask(`/api/${path}?${new URLSearchParams(given)}`)
const post = (path, given) => ask(`/api/${path}`, { method: 'POST', body: JSON.stringify(given),
  headers: { 'content-type': 'application/json' } })
const number = value => value === null ? '–' : value.toFixed(3)
const counted = (count, noun) => `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`
const who = document.getElementById('who')
const signed = given => ({ ...given, who: who ? who.value : '' })

const said = document.getElementById('said')
let silence
function say(words, undo) {
  clearTimeout(silence)
  const box = make('div', { class: undo ? null : 'plain' }, make('p', {}, words))
  if (undo) box.append(make('button', { type: 'button', onclick: undo }, 'Undo'))
  said.replaceChildren(box)
  silence = setTimeout(() => said.replaceChildren(), 7000)
}

async function tried(work) {
  try { return await work() } catch (error) {
    if (error.status === 401) return askForKey()
    if (!(error instanceof Refused)) throw error
    say(error.message)
  }
}

// --- parts of the page

function listing(shown, choose) {
  const title = shown.title || shown.id
  const picture = shown.pictures.length ? make('img', { src: shown.pictures[0], alt: '', loading: 'lazy', decoding: 'async',
    onerror: event => event.target.replaceWith(make('span', { class: 'none' }, 'no picture')) })
    : make('span', { class: 'none' }, 'no picture')
  const more = shown.pictures.length - 1
  const parts = [picture, make('p', { class: 'title', dir: 'auto', title }, title),
    make('small', {}, make('bdi', {}, shown.id), more > 0 ? `, ${counted(more, 'more picture')}` : '')]
  if (!choose) return make('div', { class: 'listing' }, ...parts)
  return make('button', { type: 'button', class: 'listing', 'aria-pressed': 'false', 'data-id': shown.id,
    onclick: event => choose(shown, event.currentTarget) }, ...parts)
}

function bar(value, threshold) {
  const share = part => `${100 * Math.min(1, Math.max(0, part))}%`
  const fill = make('i'), node = make('span', { class: 'bar', 'aria-hidden': 'true' }, fill)
  fill.style.width = share(value)
  if (threshold !== undefined) {
    const mark = make('b')
    mark.style.left = share(threshold)
    node.append(mark)
  }
  return node
}

function scores(pair, threshold) {
  const row = (name, value, kind, mark) => make('tr', { class: kind }, make('th', { scope: 'row' }, name),
    make('td', {}, number(value)), make('td', {}, value === null ? '' : bar(value, mark)))
  const rows = Object.entries(pair.scores).map(([name, value]) => row(name, value))
  return make('table', { class: 'scores' }, make('tbody', {}, ...rows, row('score', pair.score, 'fused', threshold),
    make('tr', {}, make('th', { scope: 'row' }, 'threshold'), make('td', {}, number(threshold)), make('td'))))
}

const stepped = why => why === 'score' ? 'by their score' : `by ${why}`

function pairCard(pair, threshold, ...below) {
  return make('article', { class: 'pair' },
    make('div', { class: 'sides' }, listing(pair.first), listing(pair.second)),
    scores(pair, threshold), ...below)
}

const loading = words => view.replaceChildren(make('h1', {}, words), make('p', { class: 'soft' }, 'Loading ...'))
const empty = (...words) => make('p', { class: 'empty' }, ...words)

async function judge(first, second, same, after) {
  const change = await tried(() => post('verdict', signed({ first: first.id, second: second.id, same })))
  if (!change) return
  const moved = change.moved.length ? `; ${counted(change.moved.length, 'listing')} changed group` : ''
  say(`${same ? 'The same product' : 'Not the same product'}: kept${moved}.`, () => undo(change.event))
  await after()
}

async function undo(event) {
  const change = await tried(() => post('undo', signed({ event })))
  if (!change) return
  say(`Event ${event} is taken back.`)
  await show()
}

// --- close calls: a pair at a time, the nearest to the threshold first

let queue = { pairs: [], passed: new Set() }

async function closeCalls() {
  if (!queue.pairs.length) loading('Close calls')
  const answer = await get('close-calls', { n: 50 })
  queue.pairs = answer.pairs.filter(pair => !queue.passed.has(`${pair.first.id} ${pair.second.id}`))
  queue.threshold = answer.threshold
  showCall()
}

function showCall() {
  const pair = queue.pairs[0], heading = make('h1', {}, 'Close calls')
  if (!pair) {
    const again = make('button', { type: 'button', onclick: () => { queue.passed.clear(); tried(closeCalls) } },
      'Show those again that were passed over')
    return view.replaceChildren(heading, empty('No pair near the threshold is left to judge.'),
      queue.passed.size ? again : '')
  }
  const next = () => { queue.pairs.shift(); return queue.pairs.length ? showCall() : closeCalls() }
  const decide = same => judge(pair.first, pair.second, same, closeCalls)
  const skip = () => { queue.passed.add(`${pair.first.id} ${pair.second.id}`); next() }
  const keyed = (words, key) => [words, make('kbd', { 'aria-hidden': 'true' }, key)]
  const now = pair.matches ? make('span', { class: 'right' }, 'match') : make('span', { class: 'wrong' }, 'do not match')
  view.replaceChildren(heading,
    make('p', { class: 'soft' }, 'Pairs so near to the threshold that a person should look. What you say is kept, and every later grouping obeys it.'),
    make('div', { class: 'queue' }, pairCard(pair, queue.threshold,
      make('p', { class: 'says' }, 'As it is, they ', now, `, ${stepped(pair.why)}. Are they the same product?`),
      make('div', { class: 'judge' },
        make('button', { type: 'button', class: 'same', onclick: () => decide(true), 'data-key': 's', 'aria-keyshortcuts': 's' },
          ...keyed('The same', 'S')),
        make('button', { type: 'button', class: 'apart', onclick: () => decide(false), 'data-key': 'd', 'aria-keyshortcuts': 'd' },
          ...keyed('Different', 'D')),
        make('button', { type: 'button', class: 'quiet', onclick: skip, 'data-key': 'n', 'aria-keyshortcuts': 'n' },
          ...keyed('Not sure, next one', 'N'))))))
}

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, dialog')) return
  const button = view.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`)
  if (button) { event.preventDefault(); button.click() }
})

// --- search: by title, or by a picture

let asked = { text: '', file: null }

function search() {
  const results = make('div', { 'aria-live': 'polite' })
  const text = make('input', { type: 'search', id: 'text', 'aria-label': 'Title', maxlength: 500, value: asked.text,
    placeholder: inputs.includes('title') ? 'Title of a listing' : 'Words of a title, or an id' })
  const file = make('input', { type: 'file', id: 'file', class: 'file', accept: 'image/jpeg,image/png,image/webp,image/gif,image/bmp' })
  const drop = make('div', { class: 'drop' })
  const look = () => tried(() => find(text.value, results))
  const take = chosen => { asked.file = chosen || null; showDrop(); look() }
  function showDrop() {
    const label = make('label', { for: 'file', class: 'file-label' }, asked.file ? 'Another one' : 'choose a file')
    if (!asked.file) return drop.replaceChildren(make('p', {}, 'Drop a picture here, paste one, or ', file, label))
    const shown = make('img', { alt: 'The picture that is looked for', src: URL.createObjectURL(asked.file),
      onload: event => URL.revokeObjectURL(event.target.src) })
    drop.replaceChildren(shown, make('p', {}, file, label, ' · ',
      make('button', { type: 'button', class: 'quiet', onclick: () => { file.value = ''; take(null) } }, 'Without a picture')))
  }
  file.addEventListener('change', () => take(file.files[0]))
  drop.addEventListener('dragover', event => { event.preventDefault(); drop.classList.add('over') })
  drop.addEventListener('dragleave', () => drop.classList.remove('over'))
  drop.addEventListener('drop', event => {
    event.preventDefault()
    drop.classList.remove('over')
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0])
  })
  pasted = chosen => take(chosen)
  const form = make('form', { class: 'ask', role: 'search', onsubmit: event => { event.preventDefault(); look() } },
    text, make('button', { class: 'same' }, 'Search'))
  showDrop()
  view.replaceChildren(make('h1', {}, 'Search'), form, drop, results)
  if (asked.text || asked.file) look()
}

let pasted = null
document.addEventListener('paste', event => {
  const [file] = event.clipboardData.files
  if (file && current() === 'search') pasted(file)
})

async function find(text, results) {
  asked.text = text
  results.replaceChildren(make('p', { class: 'soft' }, 'Looking ...'))
  try { results.replaceChildren(...await found(text)) } catch (error) {
    if (!(error instanceof Refused) || error.status === 401) throw error
    results.replaceChildren(make('p', { class: 'error', role: 'alert' }, error.message))
  }
}

async function found(text) {
  // a matcher of titles alone matches a title that is typed, where there is no catalogue to search
  if (asked.file || !hasCatalogue) return matches(text)
  if (!text.trim()) return [empty('Type words of a title, or drop a picture.')]
  const { listings } = await get('search', { text, n: 60 })
  if (!listings.length) return [empty('No title holds all of these words.')]
  return [make('h2', {}, counted(listings.length, 'listing')), make('ul', { class: 'members' },
    ...listings.map(shown => make('li', {}, listing(shown, chosen => explain(chosen)))))]
}

async function matches(text) {
  const form = new FormData()
  if (asked.file) form.append('picture', asked.file, 'picture')
  if (text.trim()) form.append('title', text)
  const answer = await ask('/api/match', { method: 'POST', body: form })
  if (!answer.matches.length) return [empty(`Nothing matches: no score reaches the threshold, ${number(answer.threshold)}.`)]
  return [make('h2', {}, counted(answer.matches.length, 'match').replace('matchs', 'matches')),
    make('div', { class: 'matches' }, ...answer.matches.map(match => make('article', { class: 'match' },
      listing(match.listing, hasCatalogue ? chosen => explain(chosen) : null),
      make('div', {}, matchWords(match), scores(match, answer.threshold)))))]
}

function matchWords(match) {
  const words = make('p', { class: 'says' }, 'Matches ', make('span', { class: 'right' }, stepped(match.why)))
  if (match.listing.group !== null) words.append(', in ', groupLink(match.listing.group))
  return words
}

const groupLink = group => make('a', { href: `#group/${group}` }, `group ${group}`)

// --- groups: rows of pictures, of which two can be compared

async function groups(start = 0) {
  if (!start) loading('Groups')
  const answer = await get('groups', { n: 12, start })
  const cards = answer.groups.map(groupCard)
  const more = make('button', { type: 'button', class: 'more', onclick: () => { more.remove(); tried(() => groups(start + 12)) } },
    'More groups')
  if (start) view.querySelector('.groups').append(...cards)
  else view.replaceChildren(make('h1', {}, 'Groups'),
    make('p', { class: 'soft' }, 'Listings that are the same product, the largest groups first. Choose two of a group to see why they are together, or to part them.'),
    cards.length ? make('div', { class: 'groups' }, ...cards) : empty('No group has two listings yet.'))
  if (answer.more) view.append(more)
}

function groupCard(group) {
  const chosen = [], pick = make('div', { class: 'pick', role: 'group', 'aria-label': 'What is chosen' })
  const choose = (shown, button) => {
    const place = chosen.findIndex(each => each.shown.id === shown.id)
    if (place >= 0) chosen.splice(place, 1)
    else chosen.push({ shown, button })
    if (chosen.length > 2) chosen.shift().button.setAttribute('aria-pressed', 'false')
    button.setAttribute('aria-pressed', String(chosen.some(each => each.button === button)))
    const ids = chosen.map(each => each.shown)
    pick.replaceChildren()
    if (chosen.length) pick.append(make('button', { type: 'button', onclick: () => explain(...ids) },
      chosen.length === 2 ? 'Why these two?' : 'Why is it here?'))
    if (chosen.length === 2) pick.append(make('button', { type: 'button', class: 'apart',
      onclick: () => judge(...ids, false, show) }, 'Not the same'))
    if (chosen.length === 1) pick.append(make('small', {}, 'or choose another one'))
  }
  const hidden = group.size - group.listings.length
  return make('article', { class: 'group', 'data-group': group.group, 'aria-label': `Group ${group.group}` },
    make('header', {}, make('h3', {}, groupLink(group.group)),
      make('small', {}, counted(group.size, 'listing') + (hidden > 0 ? `, ${hidden} not shown` : ''))),
    make('ul', { class: 'members' }, ...group.listings.map(shown => make('li', {}, listing(shown, choose)))), pick)
}

async function oneGroup(group) {
  loading(`Group ${group}`)
  const answer = await get(`groups/${group}`)
  view.replaceChildren(make('h1', {}, `Group ${answer.group}`),
    ...Number(group) === answer.group ? [] : [make('p', { class: 'soft' }, `Group ${group} was merged into it.`)],
    make('div', { class: 'groups' }, groupCard(answer)), make('p', {}, make('a', { href: '#groups' }, 'All groups')))
}

// --- why

const dialog = document.getElementById('why')

async function explain(first, second) {
  const answer = await tried(() => get('why', second ? { first: first.id, second: second.id } : { first: first.id }))
  if (!answer) return
  const { rule } = await get('about')
  const part = pair => make('div', { class: 'judge' },
    make('button', { type: 'button', class: 'same', onclick: () => decided(pair, true) }, 'The same'),
    make('button', { type: 'button', class: 'apart', onclick: () => decided(pair, false) }, 'Different'))
  const decided = (pair, same) => { dialog.close(); return judge(pair.first, pair.second, same, show) }
  const isApart = pair => pair.why === 'no match' || (pair.why === 'score' && pair.score < answer.threshold)
  const says = pair => isApart(pair) ? 'Not a match.' : pair.score === null ? pair.why : `Together ${stepped(pair.why)}.`
  const cards = answer.pairs.slice(0, 20).map(pair => pairCard(pair, answer.threshold,
    make('p', { class: 'says' }, says(pair)), part(pair)))
  const own = second && !answer.pairs.length ? [part({ first, second })] : []
  const group = first.group ? make('p', {}, groupLink(first.group)) : ''
  document.getElementById('why-body').replaceChildren(make('p', {}, answer.sentence), group, ...own, ...cards,
    make('details', {}, make('summary', {}, 'The rule'), make('ol', {}, ...rule.map(sentence => make('li', {}, sentence)))))
  dialog.showModal()
}

dialog.addEventListener('click', event => {
  if (event.target === dialog || event.target.closest('a')) dialog.close()
})

// --- changes

async function changes() {
  loading('Changes')
  const { events } = await get('events', { n: 60 })
  const rows = events.map(event => make('li', {},
    make('div', {}, `${event.event} · ${event.kind}`, event.who ? ` by ${event.who}` : '', event.reason ? `: ${event.reason}` : '',
      make('br'), make('small', {}, make('time', { datetime: `${event.time}Z` }, new Date(`${event.time}Z`).toLocaleString()))),
    ['add', 'remove', 'verdict', 'split', 'undo'].includes(event.kind)
      ? make('button', { type: 'button', 'aria-label': `Undo event ${event.event}`, onclick: () => undo(event.event) }, 'Undo') : ''))
  view.replaceChildren(make('h1', {}, 'Changes'),
    make('p', { class: 'soft' }, 'What came, went or was said, the newest first. Each can be taken back; later ones stay.'),
    rows.length ? make('ul', { class: 'events' }, ...rows) : empty('Nothing has happened yet.'))
}

// --- the key

function askForKey() {
  const key = make('input', { type: 'password', id: 'key', autocomplete: 'current-password', required: true })
  const wrong = make('p', { class: 'error', role: 'alert' })
  const enter = async event => {
    event.preventDefault()
    try { await post('session', { key: key.value }) } catch (error) { wrong.textContent = error.message; return }
    await show()
  }
  view.replaceChildren(make('h1', {}, 'The key, please'), make('p', { class: 'soft' },
    'This service asks for the key that it was started with.'), make('form', { class: 'key', onsubmit: enter },
    make('label', { for: 'key' }, 'Key'), make('div', { class: 'ask' }, key, make('button', { class: 'same' }, 'Enter')), wrong))
  key.focus()
}

// --- which view

const views = { 'close-calls': closeCalls, search, groups, changes, group: oneGroup }
const current = () => location.hash.slice(1).split('/')[0] || (hasCatalogue ? 'close-calls' : 'search')

async function show() {
  const name = current(), argument = location.hash.split('/')[1]
  for (const link of document.querySelectorAll('nav a')) {
    const isHere = link.hash === `#${name}` || (name === 'group' && link.hash === '#groups')
    if (isHere) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  try { await (views[name] || search)(argument) } catch (error) {
    if (error.status === 401) return askForKey()
    if (!(error instanceof Refused)) throw error
    view.replaceChildren(make('h1', {}, 'That did not work'), make('p', { class: 'error', role: 'alert' }, error.message))
  }
}

addEventListener('hashchange', () => { queue.pairs = []; show(); view.focus({ preventScroll: true }); scrollTo(0, 0) })
// the address says which view is shown: it is no place on the page
document.querySelector('.skip').addEventListener('click', event => { event.preventDefault(); view.focus() })
// a picture that is dropped beside its place shall not replace the page
for (const kind of ['dragover', 'drop']) addEventListener(kind, event => event.preventDefault())
if (who) {
  try { who.value = localStorage.getItem('who') || '' } catch { /* the browser keeps nothing for this page */ }
  who.addEventListener('input', () => { try { localStorage.setItem('who', who.value) } catch { /* as above */ } })
}
show()
