-- One row: how far the log was read.
CREATE TABLE progress (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  log      INTEGER,            -- ponos_core::journal::Position
  place    INTEGER,
  latest   INTEGER NOT NULL,   -- the latest entry's time, milliseconds since the epoch like every time here
  began    INTEGER NOT NULL,   -- since when the log keeps entries, 0 where that is not known
  read_at  INTEGER NOT NULL    -- when the log was last read to its end, on this machine's clock
) STRICT;
INSERT INTO progress VALUES (1, NULL, NULL, 0, 0, 0);

CREATE TABLE origin (
  id       INTEGER PRIMARY KEY, -- Origin::id
  app      TEXT    NOT NULL,
  version  TEXT,
  host     TEXT    NOT NULL,
  started  INTEGER NOT NULL,
  next     INTEGER NOT NULL,    -- the number behind the highest that was seen
  latest   INTEGER NOT NULL,    -- the time of that entry
  first_at INTEGER NOT NULL,
  last_at  INTEGER NOT NULL,
  hello_at INTEGER,
  bye_at   INTEGER,
  beat_at  INTEGER,
  beat     BLOB                 -- the latest beat: ponos_core::journal::encode of one entry
) STRICT;

-- Entries that were numbered and never came.
CREATE TABLE gap (
  origin    INTEGER NOT NULL,
  first     INTEGER NOT NULL,
  last      INTEGER NOT NULL,
  after_at  INTEGER NOT NULL,   -- the time of the entry before it
  before_at INTEGER NOT NULL,   -- the time of the entry behind it
  PRIMARY KEY (origin, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE manifest (
  app     TEXT    NOT NULL,
  version TEXT    NOT NULL,     -- empty for none
  at      INTEGER NOT NULL,
  origin  INTEGER NOT NULL,
  text    TEXT    NOT NULL,
  PRIMARY KEY (app, version)
) STRICT, WITHOUT ROWID;

-- Circuits, orders and limits.
CREATE TABLE notice (
  at     INTEGER NOT NULL,
  origin INTEGER NOT NULL,
  seq    INTEGER NOT NULL,
  entry  BLOB    NOT NULL,
  PRIMARY KEY (at, origin, seq)
) STRICT, WITHOUT ROWID;

-- What queues did, by the hour (hours since the epoch). A histogram is pairs of a bucket and a count as LEB128.
CREATE TABLE queue_hour (
  hour       INTEGER NOT NULL,
  queue      TEXT    NOT NULL,
  done       INTEGER NOT NULL,
  retried    INTEGER NOT NULL,
  snoozed    INTEGER NOT NULL,
  gave_up    INTEGER NOT NULL,
  failed     INTEGER NOT NULL,
  recovered  INTEGER NOT NULL,
  lost       INTEGER NOT NULL,
  duplicates INTEGER NOT NULL,
  suspected  INTEGER NOT NULL,
  by_hand    INTEGER NOT NULL,
  wait       BLOB    NOT NULL,
  took       BLOB    NOT NULL,
  PRIMARY KEY (hour, queue)
) STRICT, WITHOUT ROWID;

-- What was published, by whom.
CREATE TABLE name_hour (
  hour        INTEGER NOT NULL,
  name        TEXT    NOT NULL,
  event       INTEGER NOT NULL,
  source      TEXT    NOT NULL, -- the queue of the handler, or the application, or nothing
  published   INTEGER NOT NULL,
  unpublished INTEGER NOT NULL,
  copies      INTEGER NOT NULL, -- how many queues they went to, summed up
  bytes       INTEGER NOT NULL,
  PRIMARY KEY (hour, name, event, source)
) STRICT, WITHOUT ROWID;
