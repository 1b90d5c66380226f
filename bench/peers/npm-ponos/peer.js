'use strict'

// The npm package `ponos` 5.8.3 as a peer: the words are those of ../report/src/lib.rs. It publishes windows of messages
// and waits for all confirms of one before the next, because it has no confirm of a single message.

process.env.WORKER_MONITOR_DISABLED = '1'
const [workload, ...words] = process.argv.slice(2)
const order = Object.fromEntries(words.map(word => [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)]))
const number = (key, otherwise) => (key in order ? Number(order[key]) : otherwise)
const count = number('count', 10000)
const task = order.queue
const name = task.split('.')[0]

const { createLogger } = require('bunyan')
const RabbitMQ = require('ponos/lib/rabbitmq')
const { Server } = require('ponos')

const url = new URL(order.url)
const log = createLogger({ name, level: 'fatal', stream: process.stderr })
// The package knows no virtual host and checks no host name; see crates/ponos/tests/rabbitmq/node/peer.js.
const vhost = url.pathname.slice(1)
const broker = {
  hostname: vhost ? `${url.hostname}:${url.port}/${vhost}?port=` : url.hostname,
  port: Number(url.port || 5672),
  username: url.username,
  password: url.password
}

let began
function begin () {
  began = { at: process.hrtime.bigint(), cpu: process.cpuUsage() }
}

function end () {
  const seconds = Number(process.hrtime.bigint() - began.at) / 1e9
  const cpu = process.cpuUsage(began.cpu)
  const line = { count, seconds, cpu: (cpu.user + cpu.system) / 1e6, rss_kib: process.resourceUsage().maxRSS }
  process.stdout.write(JSON.stringify(line) + '\n')
}

async function publish () {
  const client = new RabbitMQ(Object.assign({ name, log, events: [], tasks: [task] }, broker))
  await client.connect()
  const text = 'payload-'.repeat(1 + number('body', 256) / 8).slice(0, Math.max(0, number('body', 256) - 40))
  const window = number('window', 256)
  begin()
  for (let n = 0; n < count;) {
    const upTo = Math.min(count, n + window)
    const sent = []
    for (; n < upTo; n++) sent.push(client.publishTask(task, { n, text }))
    await Promise.all(sent)
    await client.publishChannel.waitForConfirms()
  }
  end()
  await client.disconnect()
}

async function consume () {
  const wait = number('wait_ms', 0)
  let left = count
  let all
  const over = new Promise(resolve => { all = resolve })
  const run = async () => {
    if (!began) begin()
    if (wait) await new Promise(resolve => setTimeout(resolve, wait))
    if (--left === 0) all()
  }
  const channel = number('prefetch', 0) ? { channel: { prefetch: number('prefetch', 0) } } : {}
  const server = new Server({
    name,
    log,
    rabbitmq: Object.assign({ name, log, events: [], tasks: [task] }, broker, channel),
    events: {},
    tasks: { [task]: { task: run } }
  })
  await server.start()
  await over
  end()
  await server.stop()
}

const workloads = { publish, consume }
workloads[workload]().then(() => process.exit(0), err => {
  process.stderr.write(`${err.stack}\n`)
  process.exit(1)
})
