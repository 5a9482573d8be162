-- The ledger is to be kept by month, so that what is old is dropped whole; calls of other programs will stand in it as well, and each
-- says what it was billed at and which way it took. It may hold millions of lines, and somebody always writes: the table that is there
-- becomes the first of the months as it stands. This step and the last one (…_usage_by_month) have it to themselves and read nothing;
-- those between read all of it and let everybody write. The columns that were there stay as they are: a replica of the release before
-- goes on writing.

-- Takes all of these locks ('usage IN ACCESS EXCLUSIVE MODE') or none. Where somebody reads for long (a dump), whoever wants to write
-- would wait behind us: so we wait for half a second, and then let the others pass before we ask again.
CREATE FUNCTION lock_gently(VARIADIC locks text[]) RETURNS void LANGUAGE plpgsql SET lock_timeout = '500ms' AS $$
DECLARE
    lock text;
BEGIN
    LOOP
        BEGIN
            FOREACH lock IN ARRAY locks LOOP
                EXECUTE 'LOCK TABLE ' || lock;
            END LOOP;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(1);
        END;
    END LOOP;
END $$;

SELECT lock_gently('api_keys IN SHARE ROW EXCLUSIVE MODE', 'usage IN ACCESS EXCLUSIVE MODE');

-- By itself: beside a column with a default Postgres would look through all lines for keys that are not there.
ALTER TABLE usage ADD COLUMN api_key_id uuid REFERENCES api_keys;

ALTER TABLE usage
    -- Null where another program called; `job_id` is the id of its call.
    ALTER COLUMN user_id DROP NOT NULL,
    ALTER COLUMN bot_id DROP NOT NULL,
    ALTER COLUMN conversation_id DROP NOT NULL,
    -- What follows is null in rows that a release before has written.
    -- The name that was asked for; `model` is the provider's.
    ADD COLUMN alias text,
    ADD COLUMN provider_id uuid,
    ADD COLUMN model_id uuid,
    -- Nano-dollars per million tokens, as billed.
    ADD COLUMN input_price bigint,
    ADD COLUMN cached_price bigint,
    ADD COLUMN output_price bigint,
    ADD COLUMN reasoning_tokens bigint,
    ADD COLUMN images bigint,
    -- Who was asked, in order: [{provider, model, code, status, ms}].
    ADD COLUMN tries jsonb,
    -- '' (none), 'exact' or 'semantic'.
    ADD COLUMN cache text NOT NULL DEFAULT '',
    ADD COLUMN error_code text,
    ADD COLUMN http_status integer,
    -- What is there is looked at by a later step (…_usage_checked).
    ADD CONSTRAINT usage_input_price_check CHECK (input_price >= 0) NOT VALID,
    ADD CONSTRAINT usage_cached_price_check CHECK (cached_price >= 0) NOT VALID,
    ADD CONSTRAINT usage_output_price_check CHECK (output_price >= 0) NOT VALID,
    ADD CONSTRAINT usage_reasoning_tokens_check CHECK (reasoning_tokens >= 0) NOT VALID,
    ADD CONSTRAINT usage_images_check CHECK (images >= 0) NOT VALID;

-- The last month of this table, by which the constraint is named. The month after this one is among its own, since lines are written
-- to it until the last step, and nobody may be refused should that be tomorrow.
DO $$
DECLARE
    last date := date_trunc('month', greatest((SELECT max(at) FROM usage), now()) AT TIME ZONE 'UTC') + interval '1 month';
BEGIN
    EXECUTE format(
        'ALTER TABLE usage ADD CONSTRAINT %I CHECK (at < %L) NOT VALID',
        'usage_until_' || to_char(last, 'YYYY_MM'),
        (last + interval '1 month')::timestamp AT TIME ZONE 'UTC'
    );
END $$;
