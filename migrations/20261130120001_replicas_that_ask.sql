-- Every process says that it lives, but only some ask models, and only these share what is limited. One of an older release does not
-- say whether it asks: it counts.
ALTER TABLE api_replicas ADD COLUMN asks boolean NOT NULL DEFAULT true;
