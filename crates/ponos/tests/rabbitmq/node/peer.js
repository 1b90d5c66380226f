'use strict'

// A service on the npm package `ponos` 5.8.3, steered by a test: one JSON object a line on the standard input and output.
//
//   npm ci --ignore-scripts --omit=optional
//   node peer.js publisher --name cream --event org.payment.processed
//   node peer.js server --name pheidi --event org.payment.processed --republish org.payment.processed=email.sent
//
// | option | what |
// | --- | --- |
// | `--name APP` | the application; the package's own default is `ponos` |
// | `--event NAME` | publisher: an event that it may publish. server: an event that it hears, in the queue `APP.NAME` |
// | `--task NAME` | publisher: a task that it may publish. server: a task that it serves, in the queue `APP.NAME` |
// | `--republish FROM=TO` | server: the worker of FROM publishes the event TO with the same payload |
// | `--fail NAME=N` | server: the first N runs of each job of NAME fail (jobs are told apart by their TID); `NAME=stop`: each throws a `WorkerStopError` |
// | `--max-num-retries N` | server: `maxNumRetries` of all workers |
// | `--prefetch N` | server: the prefetch of each queue; the package's own default is none |
// | `--errored-events` | server: `enableErrorEvents`, so that a job that fails for good publishes `worker.errored` |
//
// | in | out |
// | --- | --- |
// | `{"publish":"event","name":…,"payload":{…},"tid":…,"options":{…}}`, or `"publish":"task"` | `{"published":"event","name":…,"tid":…}` once the broker has confirmed; `tid` and `options` may be left out. With `"times":N`, N equal messages within one millisecond |
// | `{"stop":true}`, or the end of the input | `{"stopped":true}`, exit code 0 |
// | – | `{"ready":true}`, once, when everything is declared and consumed |
// | – | `{"job":NAME,"payload":{…},"tid":…,"meta":{…}}` at the start of each run |
// | – | `{"republished":TO,"tid":…}`, and `{"final":NAME,"tid":…}` from `finalRetryFn` |
// | – | `{"error":…}`: an order was refused; or, with exit code 1, the package threw where nobody catches |
//
// The broker is named as the package names it: RABBITMQ_HOSTNAME, RABBITMQ_PORT, RABBITMQ_USERNAME, RABBITMQ_PASSWORD. The
// package knows no virtual host; RABBITMQ_VHOST is ours, see below. Its log goes to the error output, from LOG_LEVEL (default `fatal`) on.

process.env.WORKER_MONITOR_DISABLED = '1'

// Read before the package is loaded: one of its dependencies replaces `process.env` and turns texts into numbers.
const env = Object.assign({}, process.env)
const port = Number(env.RABBITMQ_PORT || 5672)
const broker = {
  hostname: env.RABBITMQ_HOSTNAME || '127.0.0.1',
  port,
  username: env.RABBITMQ_USERNAME || 'guest',
  password: env.RABBITMQ_PASSWORD || 'guest'
}
if (env.RABBITMQ_VHOST && env.RABBITMQ_VHOST !== '/') {
  // The package makes `amqp://user:password@HOSTNAME:PORT` of its options and checks neither, so a host name may bring a
  // virtual host along; what the package appends ends in a query parameter that amqplib does not know.
  broker.hostname = `${broker.hostname}:${port}/${encodeURIComponent(env.RABBITMQ_VHOST)}?port=`
}

const bunyan = require('bunyan')
const Promise = require('bluebird')
const readline = require('readline')
const WorkerStopError = require('error-cat/errors/worker-stop-error')
const RabbitMQ = require('ponos/lib/rabbitmq')
const Server = require('ponos').Server

let stopping = false
process.on('uncaughtException', die)
// While it stops, the package acknowledges on a channel that it has closed.
process.on('unhandledRejection', err => { if (!stopping) die(err) })

const log = bunyan.createLogger({
  name: 'ponos',
  level: env.LOG_LEVEL || 'fatal',
  stream: process.stderr,
  serializers: bunyan.stdSerializers
})
const role = process.argv[2]
const options = parse(process.argv.slice(3))

Promise.try(() => {
  if (role === 'publisher') return publisher()
  if (role === 'server') return server()
  throw new Error('say `publisher` or `server` first')
}).catch(die)

function publisher () {
  const client = newClient(options.events, options.tasks)
  return client.connect().then(() => {
    listen(client, () => client.disconnect())
    say({ ready: true })
  })
}

function server () {
  const client = newClient(Array.from(new Set(options.republish.values())), [])
  const server = new Server({
    name: options.name,
    log,
    enableErrorEvents: options.erroredEvents,
    // The server itself declares only the queues of events. The exchanges, the queues of tasks and, once `events` is
    // given, `worker.errored` have to be named here.
    rabbitmq: Object.assign(
      {
        name: options.name,
        log,
        events: options.events.concat(options.erroredEvents ? ['worker.errored'] : []),
        tasks: options.tasks
      },
      broker,
      options.prefetch === undefined ? {} : { channel: { prefetch: options.prefetch } }
    ),
    events: Object.fromEntries(options.events.map(name => [name, worker(client, name)])),
    tasks: Object.fromEntries(options.tasks.map(name => [name, worker(client, name)]))
  })
  return client.connect()
    .then(() => server.start())
    .then(() => {
      listen(client, () => server.stop().then(() => client.disconnect()))
      say({ ready: true })
    })
}

/** The worker of an event or a task, with its options. */
function worker (client, name) {
  const runs = new Map()
  const task = (job, meta) => Promise.try(() => {
    const payload = Object.assign({}, job)
    delete payload.tid
    say({ job: name, payload, tid: job.tid, meta: withoutUndefined(meta) })
    const how = options.fail.get(name)
    if (how === 'stop') throw new WorkerStopError('stopped by order of the test', {})
    if (how !== undefined) {
      const run = (runs.get(job.tid) || 0) + 1
      runs.set(job.tid, run)
      if (run <= Number(how)) throw new Error(`run ${run} fails by order of the test`)
    }
    const to = options.republish.get(name)
    if (to === undefined) return
    // As the developer of a Node service would: the content has no TID, the package adds it from its namespace.
    return client.publishEvent(to, payload)
      .then(() => client.publishChannel.waitForConfirms())
      .then(() => say({ republished: to, tid: payload.tid }))
  })
  const finalRetryFn = job => Promise.try(() => say({ final: name, tid: job.tid }))
  return Object.assign(
    { task, finalRetryFn },
    options.maxNumRetries === undefined ? {} : { maxNumRetries: options.maxNumRetries }
  )
}

/** A client of the package that may publish these. */
function newClient (events, tasks) {
  return new RabbitMQ(Object.assign({ name: options.name, log, events, tasks }, broker))
}

/** Takes orders from the standard input; `stop` ends what was started. */
function listen (client, stop) {
  const end = () => {
    if (stopping) return
    stopping = true
    stop().then(() => say({ stopped: true })).then(() => process.exit(0)).catch(die)
  }
  const lines = readline.createInterface({ input: process.stdin, terminal: false })
  let last = Promise.resolve()
  lines.on('close', () => { last = last.then(end) })
  lines.on('line', line => {
    if (line.trim() === '') return
    last = last
      .then(() => {
        const order = JSON.parse(line)
        return order.stop ? end() : publish(client, order)
      })
      .catch(err => say({ error: err.message }))
  })
}

function publish (client, order) {
  const content = Object.assign({}, order.payload, order.tid === undefined ? {} : { tid: order.tid })
  const send = () => {
    if (order.publish === 'event') return client.publishEvent(order.name, content, order.options)
    if (order.publish === 'task') return client.publishTask(order.name, content, order.options)
    throw new Error('`publish` is `event` or `task`')
  }
  return Promise.try(() => withinOneMillisecond(() => Promise.all(Array.from({ length: order.times || 1 }, send))))
    // The package itself does not wait for the confirm.
    .then(() => client.publishChannel.waitForConfirms())
    .then(() => say({ published: order.publish, name: order.name, tid: content.tid }))
}

/** The package stamps its messages by `Date.now`; a busy machine must not tell equal ones apart. */
function withinOneMillisecond (send) {
  const now = Date.now
  const stopped = now()
  Date.now = () => stopped
  try {
    return send()
  } finally {
    Date.now = now
  }
}

function withoutUndefined (properties) {
  return Object.fromEntries(Object.entries(properties).filter(entry => entry[1] !== undefined))
}

function parse (args) {
  const options = { events: [], tasks: [], republish: new Map(), fail: new Map(), erroredEvents: false }
  while (args.length > 0) {
    const option = args.shift()
    if (option === '--errored-events') {
      options.erroredEvents = true
      continue
    }
    const value = args.shift()
    if (value === undefined) throw new Error(`${option} needs a value`)
    if (option === '--name') options.name = value
    else if (option === '--event') options.events.push(value)
    else if (option === '--task') options.tasks.push(value)
    else if (option === '--republish') options.republish.set(...pair(value))
    else if (option === '--fail') options.fail.set(...pair(value))
    else if (option === '--max-num-retries') options.maxNumRetries = Number(value)
    else if (option === '--prefetch') options.prefetch = Number(value)
    else throw new Error(`unknown option ${option}`)
  }
  return options
}

function pair (text) {
  const at = text.indexOf('=')
  if (at < 1) throw new Error(`expected A=B, not ${text}`)
  return [text.slice(0, at), text.slice(at + 1)]
}

function say (line) {
  process.stdout.write(JSON.stringify(line) + '\n')
}

function die (err) {
  process.stderr.write(`${(err && err.stack) || err}\n`)
  process.stdout.write(JSON.stringify({ error: String((err && err.message) || err) }) + '\n', () => process.exit(1))
}
