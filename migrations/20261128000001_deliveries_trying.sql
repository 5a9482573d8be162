-- Ids that a search for a lost message is about to look at: if its worker is lost meanwhile, the next gives what it has overwritten
-- its text back.
ALTER TABLE deliveries ADD COLUMN trying bigint[] NOT NULL DEFAULT '{}';
