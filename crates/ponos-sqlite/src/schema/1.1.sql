-- Epoch 1, minor 1: who a process is, for people who read why a job came back.

ALTER TABLE process ADD COLUMN pid INTEGER NOT NULL DEFAULT 0;
ALTER TABLE process ADD COLUMN program TEXT NOT NULL DEFAULT '';

UPDATE meta SET value = 1 WHERE key = 'minor';
