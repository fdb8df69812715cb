/**
 * `node scripts/picture.ts [FILE]`: makes the animated picture of the README from the demo: two windows in Chromium,
 * one change after another. `CHROMIUM` names the browser if it is not where Debian has it.
 */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import type { FrameLocator, Locator } from 'playwright-core'
import { buildDemo } from '../demo/app.ts'
import { findChromium, launchChromium } from '../test/support/chromium.ts'
import { animate, type Picture } from './apng.ts'

const WINDOW = { width: 400, height: 404 }
const SCALE = 0.8
const BAR = 30
const GAP = 20
const SIZE = { width: 2 * WINDOW.width + 3 * GAP, height: WINDOW.height + BAR + 2 * GAP }
/** Milliseconds that one picture of a movement stands. */
const STEP = 50

const file = resolve(process.argv[2] ?? 'docs/images/two-windows.png')
const app = await buildDemo(join(mkdtempSync(join(tmpdir(), 'rohrpost-demo-')), 'todos.sqlite'))
const address = await app.listen({ port: 0, host: '127.0.0.1' })
const browser = await launchChromium(await findChromium())

const page = await browser.newPage({ viewport: SIZE, deviceScaleFactor: 2, colorScheme: 'light' })
await page.clock.install()
await page.setContent(stage(address))
const [left, right] = [page.frameLocator('#left'), page.frameLocator('#right')]
for (const window of [left, right]) await window.getByRole('status').getByText('Live').waitFor()
// from here on the clock of the windows is that of the pictures, however long a screenshot takes
await page.clock.pauseAt(await page.evaluate(() => Date.now()) + 1000)

const pictures: Picture[] = []
let pointer = { x: SIZE.width / 2, y: SIZE.height - 70 }
await movePointer()
await shoot(1000)

await click(left.getByLabel('New to-do'))
await type('Water the plants')
await click(left.getByRole('button', { name: 'Add' }), row(right, 'Water the plants'))
await watch(1800)

await click(row(right, 'Water the plants').getByRole('checkbox'), left.getByText('2 of 4 done'))
await watch(1800)

await click(right.getByRole('button', { name: 'Cut the line' }), right.getByText('Reconnecting'))
await shoot(400)
await click(row(left, 'Tick this here').getByRole('checkbox'), left.getByText('3 of 4 done'))
while (await right.getByText('Reconnecting').isVisible()) await shoot(2 * STEP)
await untilVisible(right.getByText('3 of 4 done'))
await untilVisible(right.getByRole('status').getByText('Live'))
await watch(2400)

const bytes = animate(pictures)
mkdirSync(dirname(file), { recursive: true })
writeFileSync(file, bytes)
console.log(`${file}: ${pictures.length} pictures, ${Math.round(bytes.length / 1000)} kB`)
await browser.close()
await app.close()

/** The page with both windows, and the pointer. */
function stage (address: string): string {
  const window = (name: string) => `
    <figure>
      <div><i></i><i></i><i></i><span>localhost:3000</span></div>
      <p><iframe id="${name}" src="${address}"></iframe></p>
    </figure>`
  return `<!doctype html>
    <style>
      figure, p { margin: 0; overflow: hidden; }
      body { margin: 0; display: flex; gap: ${GAP}px; padding: ${GAP}px; background: #dfe5e1; }
      figure { width: ${WINDOW.width}px; border-radius: 10px; box-shadow: 0 0 0 1px #c3cbc6; }
      div { display: flex; gap: 7px; align-items: center; height: ${BAR}px; padding: 0 12px; background: #eff2f0; }
      i { width: 10px; height: 10px; border-radius: 50%; background: #c3cbc6; }
      span { flex: 1; margin-right: 44px; text-align: center; font: 12px system-ui, sans-serif; color: #5c655f; }
      p { height: ${WINDOW.height}px; }
      iframe { border: 0; width: ${WINDOW.width / SCALE}px; height: ${WINDOW.height / SCALE}px; }
      iframe { transform: scale(${SCALE}); transform-origin: 0 0; }
      #pointer { position: fixed; left: 0; top: 0; width: 20px; pointer-events: none; }
    </style>
    ${window('left')}${window('right')}
    <svg id="pointer" viewBox="0 0 20 20">
      <path d="M2 1v15l4-4 3 6 3-1.4L9 11h6z" fill="#111" stroke="#fff" stroke-width="1.4"/>
    </svg>`
}

/** Takes a picture that stands for some milliseconds, by which the time of the windows goes on. */
async function shoot (duration: number): Promise<void> {
  for (const frame of page.frames()) await frame.evaluate(advanceAnimations(pictures.at(-1)?.duration ?? 0))
  pictures.push({ png: await page.screenshot(), duration })
  await page.clock.runFor(duration)
}

/** Shows what happens by itself for some milliseconds. */
async function watch (duration: number): Promise<void> {
  const step = 4 * STEP
  for (let time = 0; time < duration; time += step) await shoot(step)
}

/** Moves the pointer to an element and clicks. @param outcome appears then */
async function click (element: Locator, outcome?: Locator): Promise<void> {
  const box = await element.boundingBox()
  if (box === null) throw new Error(`${element} is not visible`)
  const [from, to] = [pointer, { x: box.x + Math.min(box.width / 2, 90), y: box.y + box.height / 2 }]
  const steps = 8
  for (let step = 1; step <= steps; step++) {
    const part = (1 - Math.cos(Math.PI * step / steps)) / 2
    pointer = { x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part }
    await movePointer()
    await shoot(STEP)
  }
  await shoot(4 * STEP)
  await element.click()
  if (outcome !== undefined) await untilVisible(outcome)
}

async function movePointer (): Promise<void> {
  await page.evaluate(`document.getElementById('pointer').style.translate = '${pointer.x - 2}px ${pointer.y - 1}px'`)
}

/** Waits for the network; the client may hold a change back for a frame of the clock. */
async function untilVisible (element: Locator): Promise<void> {
  while (!await element.isVisible()) await page.clock.runFor(16)
}

async function type (text: string): Promise<void> {
  for (const letters of text.match(/.{1,2}/g) ?? []) {
    await page.keyboard.type(letters)
    await shoot(2 * STEP)
  }
  await shoot(4 * STEP)
}

function row (window: FrameLocator, title: string): Locator {
  return window.locator('#todos > li').filter({ hasText: title })
}

/** Code for a window: pauses its animations, and moves them on by some milliseconds. */
function advanceAnimations (duration: number): string {
  return `
    for (const animation of document.getAnimations()) {
      const isNew = animation.playState === 'running'
      animation.pause()
      animation.currentTime = isNew ? 0 : animation.currentTime + ${duration}
      if (animation.currentTime >= animation.effect.getComputedTiming().endTime) animation.finish()
    }`
}
