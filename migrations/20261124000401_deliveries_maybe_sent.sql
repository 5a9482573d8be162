-- Whether a message without an id may stand in the chat all the same: set before it is sent, cleared when an attempt ends knowing
-- that nothing was sent. Only then is it looked for, and each id that was not it is kept, so that nobody tries it twice.
ALTER TABLE deliveries ADD COLUMN maybe_sent boolean NOT NULL DEFAULT true,
                       ADD COLUMN tried bigint[] NOT NULL DEFAULT '{}',
                       -- What may stand there is the beginning of the text, not the text.
                       ADD COLUMN previewed boolean NOT NULL DEFAULT false;
