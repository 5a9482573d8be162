-- Who can be asked, with which keys and at what price, and the names under which people ask. Replicas look at the revision
-- every second and take a new picture of these tables when it has risen.

CREATE TABLE providers (
    id             uuid PRIMARY KEY,
    name           text NOT NULL CHECK (name <> ''),
    kind           text NOT NULL CHECK (kind IN ('openai', 'anthropic')),
    base_url       text NOT NULL,
    organisation   text,
    -- JSON objects, sealed as bots' tokens are: an address of a proxy and a header may hold a password.
    proxy_cipher   bytea,
    headers_cipher bytea,
    secrets_key_id text,
    -- Requests at once in each process; null is no bound.
    max_concurrent integer CHECK (max_concurrent > 0),
    enabled        boolean NOT NULL DEFAULT true,
    -- Follows OPENAI_BASE_URL and its kin at every start; staff do not edit it.
    from_settings  boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL,
    CHECK ((secrets_key_id IS NULL) = (proxy_cipher IS NULL AND headers_cipher IS NULL))
);
CREATE UNIQUE INDEX providers_by_name ON providers (lower(name));
CREATE UNIQUE INDEX providers_from_settings ON providers (from_settings) WHERE from_settings;

-- Several keys of one provider take turns.
CREATE TABLE provider_keys (
    id           uuid PRIMARY KEY,
    provider_id  uuid NOT NULL REFERENCES providers ON DELETE CASCADE,
    cipher       bytea NOT NULL,
    cipher_key   text NOT NULL,
    -- The few characters by which a person knows it again.
    hint         text NOT NULL,
    enabled      boolean NOT NULL DEFAULT true,
    created_at   timestamptz NOT NULL
);
CREATE INDEX provider_keys_by_provider ON provider_keys (provider_id);

CREATE TABLE models (
    id                uuid PRIMARY KEY,
    provider_id       uuid NOT NULL REFERENCES providers ON DELETE CASCADE,
    -- As the provider calls it.
    name              text NOT NULL CHECK (name <> ''),
    kind              text NOT NULL CHECK (kind IN ('chat', 'embedding', 'image', 'transcription', 'speech')),
    context_tokens    integer NOT NULL CHECK (context_tokens > 0),
    max_answer_tokens integer NOT NULL CHECK (max_answer_tokens > 0),
    enabled           boolean NOT NULL DEFAULT true,
    created_at        timestamptz NOT NULL,
    UNIQUE (provider_id, name)
);

-- Nano-dollars per million tokens, an image's per image. The newest row that has begun is in force; none is ever changed, so a
-- call that was billed can always be told its price.
CREATE TABLE prices (
    model_id     uuid NOT NULL REFERENCES models ON DELETE CASCADE,
    since        timestamptz NOT NULL,
    input        bigint NOT NULL CHECK (input >= 0),
    cached_input bigint NOT NULL CHECK (cached_input >= 0),
    output       bigint NOT NULL CHECK (output >= 0),
    -- Null: priced as other output.
    reasoning    bigint CHECK (reasoning >= 0),
    image        bigint NOT NULL DEFAULT 0 CHECK (image >= 0),
    audio_input  bigint NOT NULL DEFAULT 0 CHECK (audio_input >= 0),
    audio_output bigint NOT NULL DEFAULT 0 CHECK (audio_output >= 0),
    set_by       text NOT NULL,
    PRIMARY KEY (model_id, since)
);

-- The names under which people and programs ask.
CREATE TABLE aliases (
    name       text PRIMARY KEY CHECK (name <> ''),
    -- Offered by /model; others can only be set by staff or asked for by programs.
    shown      boolean NOT NULL DEFAULT true,
    -- The first shown one is what a bot without a model of its own uses.
    place      integer NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX aliases_by_place ON aliases (place, name);

-- Where a name leads: tier by tier, within a tier by weight.
CREATE TABLE routes (
    alias    text NOT NULL REFERENCES aliases ON UPDATE CASCADE ON DELETE CASCADE,
    model_id uuid NOT NULL REFERENCES models ON DELETE CASCADE,
    tier     smallint NOT NULL CHECK (tier >= 0),
    weight   integer NOT NULL DEFAULT 1 CHECK (weight > 0),
    PRIMARY KEY (alias, model_id)
);
CREATE INDEX routes_by_model ON routes (model_id);

-- Circuit breakers that are not closed, so that all replicas leave a sick provider alone; gone when they close.
CREATE TABLE breakers (
    provider_id uuid NOT NULL REFERENCES providers ON DELETE CASCADE,
    key_id      uuid NOT NULL,
    until       timestamptz NOT NULL,
    reason      text NOT NULL,
    changed_at  timestamptz NOT NULL,
    PRIMARY KEY (provider_id, key_id)
);

CREATE TABLE catalogue_revision (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    revision bigint NOT NULL,
    -- The names of OPENAI_MODEL as they were last followed: only when they change is their order put before that of staff.
    followed text NOT NULL DEFAULT ''
);
INSERT INTO catalogue_revision (revision) VALUES (0);
CREATE FUNCTION raise_catalogue_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE catalogue_revision SET revision = revision + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER providers_changed AFTER INSERT OR UPDATE OR DELETE ON providers FOR EACH STATEMENT EXECUTE FUNCTION raise_catalogue_revision();
CREATE TRIGGER provider_keys_changed AFTER INSERT OR UPDATE OR DELETE ON provider_keys FOR EACH STATEMENT EXECUTE FUNCTION raise_catalogue_revision();
CREATE TRIGGER models_changed AFTER INSERT OR UPDATE OR DELETE ON models FOR EACH STATEMENT EXECUTE FUNCTION raise_catalogue_revision();
CREATE TRIGGER prices_changed AFTER INSERT OR UPDATE OR DELETE ON prices FOR EACH STATEMENT EXECUTE FUNCTION raise_catalogue_revision();
CREATE TRIGGER aliases_changed AFTER INSERT OR UPDATE OR DELETE ON aliases FOR EACH STATEMENT EXECUTE FUNCTION raise_catalogue_revision();
CREATE TRIGGER routes_changed AFTER INSERT OR UPDATE OR DELETE ON routes FOR EACH STATEMENT EXECUTE FUNCTION raise_catalogue_revision();
CREATE TRIGGER breakers_changed AFTER INSERT OR UPDATE OR DELETE ON breakers FOR EACH STATEMENT EXECUTE FUNCTION raise_catalogue_revision();
