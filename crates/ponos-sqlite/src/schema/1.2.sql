-- Epoch 1, minor 2: prototypes, whose queues are bounded and forgotten. A program of an earlier minor publishes past the
-- bound; the next publish of a later one makes room.

ALTER TABLE queue ADD COLUMN prototype INTEGER NOT NULL DEFAULT 0;   -- 1 for a prototype
ALTER TABLE queue ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;     -- of a prototype: last seen declared or consumed; ms of broker time

UPDATE meta SET value = 2 WHERE key = 'minor';
