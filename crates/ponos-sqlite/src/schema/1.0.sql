-- Epoch 1, minor 0: what a fresh file starts as. Never edited: later minors add to it.
--
-- Rules within an epoch, so that programs of any minor share one file:
--   * a later minor only adds columns with a default, tables and indexes;
--   * every INSERT names its columns, no SELECT says `*`;
--   * `meta.generation` grows with every row of queue, event and binding, because every process caches them.

-- One number each: 'generation', 'last_now' (ms of broker time), 'clock_offset' (ms), 'minor'.
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE queue (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE event (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE binding (
  event_id INTEGER NOT NULL,
  queue_id INTEGER NOT NULL,
  PRIMARY KEY (event_id, queue_id)
) STRICT, WITHOUT ROWID;

-- Processes that have the file open: an open broker is one, two in an operating system's process are two.
CREATE TABLE process (
  id   INTEGER PRIMARY KEY,      -- random, also the name of its lock file
  beat INTEGER NOT NULL          -- changes every few seconds; ms
) STRICT;

CREATE TABLE consumer (
  process_id   INTEGER NOT NULL,
  subscription INTEGER NOT NULL,
  queue_id     INTEGER NOT NULL,
  PRIMARY KEY (process_id, subscription)
) STRICT, WITHOUT ROWID;

-- The columns that a claim changes keep their stored size: `fence` and `owner` are random 62-bit numbers from the
-- start, `state` 0 and 1 take no bytes. So SQLite overwrites the row where it lies and a large body is not written again.
CREATE TABLE message (
  id         INTEGER PRIMARY KEY,
  queue_id   INTEGER NOT NULL,
  message_id BLOB    NOT NULL,             -- sixteen bytes
  copy       INTEGER NOT NULL DEFAULT 0,   -- 0 as published; the row's own id once it was moved to a queue of failed jobs
  ready_at   INTEGER NOT NULL,             -- ms; not delivered before
  state      INTEGER NOT NULL DEFAULT 0,   -- 0 ready or delayed, 1 leased
  fence      INTEGER NOT NULL DEFAULT 0,   -- of the last claim
  owner      INTEGER NOT NULL DEFAULT 0,   -- process.id of the last claim
  losses     INTEGER NOT NULL DEFAULT 0,
  head       BLOB    NOT NULL,             -- ponos_core::wire::encode
  body       BLOB    NOT NULL
) STRICT;

-- Partial, with the predicate that each query repeats literally: delayed and ready rows, in the order of delivery.
CREATE INDEX message_ready ON message (queue_id, ready_at, id) WHERE state = 0;
CREATE INDEX message_leased ON message (owner, queue_id) WHERE state = 1;
-- A publisher that repeats itself after an unknown outcome finds its message here.
CREATE UNIQUE INDEX message_identity ON message (queue_id, message_id, copy);

CREATE TABLE standing_order (
  queue TEXT PRIMARY KEY,
  json  TEXT NOT NULL            -- ponos_core::broker::Order
) STRICT, WITHOUT ROWID;

INSERT INTO meta (key, value) VALUES ('generation', 1), ('last_now', 0), ('clock_offset', 0), ('minor', 0);
