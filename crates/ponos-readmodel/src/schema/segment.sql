-- One row per entry; what it says is in its batch, at the place `id - batch.first`.
CREATE TABLE entry (
  id      INTEGER PRIMARY KEY,  -- in the order of arrival, over all segments
  origin  INTEGER NOT NULL,
  seq     INTEGER NOT NULL,
  at      INTEGER NOT NULL,     -- milliseconds since the epoch
  kind    INTEGER NOT NULL,
  trace   INTEGER,
  message INTEGER               -- a hash of the message's id
) STRICT;
CREATE UNIQUE INDEX entry_once ON entry (origin, seq);
CREATE INDEX entry_trace ON entry (trace) WHERE trace IS NOT NULL;
CREATE INDEX entry_message ON entry (message) WHERE message IS NOT NULL;

CREATE TABLE batch (
  first INTEGER PRIMARY KEY,
  bytes BLOB NOT NULL           -- ponos_core::journal::encode
) STRICT;

CREATE TABLE origin (
  id  INTEGER PRIMARY KEY,
  key INTEGER NOT NULL UNIQUE   -- Origin::id
) STRICT;

-- Names, queues and applications.
CREATE TABLE word (
  id   INTEGER PRIMARY KEY,
  text TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE trace (
  id        INTEGER PRIMARY KEY,
  tail      ANY     NOT NULL UNIQUE, -- the id backwards: 16 bytes of a UUID with their digits swapped, or a text
  first_at  INTEGER NOT NULL,
  last_at   INTEGER NOT NULL,
  root      INTEGER,                 -- the word that it began with, as far as is known
  root_rank INTEGER NOT NULL,        -- how sure that is; less is better
  records   INTEGER NOT NULL,
  failed    INTEGER NOT NULL,
  retries   INTEGER NOT NULL,
  opened    INTEGER NOT NULL,        -- jobs that came to be
  closed    INTEGER NOT NULL         -- jobs that ended
) STRICT;
CREATE INDEX trace_failed ON trace (id) WHERE failed > 0;

-- Which traces have to do with a word.
CREATE TABLE seen (
  word  INTEGER NOT NULL,
  trace INTEGER NOT NULL,
  PRIMARY KEY (word, trace)
) STRICT, WITHOUT ROWID;
