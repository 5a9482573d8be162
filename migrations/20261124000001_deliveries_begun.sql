-- When the job was about to send, by this database's clock. What was noted before has a smaller message id than what the job sent:
-- where a message is looked for whose id was never learnt, nothing below needs to be tried.
ALTER TABLE deliveries ADD COLUMN begun_at timestamptz NOT NULL DEFAULT now();
