-- Calls of other programs that are under way. A row is written when a call begins and deleted by the statement that writes its line of
-- the ledger; what a replica that went away has left behind is charged by its estimate.

-- Which replicas take calls, and when each last said that it lives.
CREATE TABLE api_replicas (
    id       uuid PRIMARY KEY,
    alive_at timestamptz NOT NULL
);

CREATE TABLE api_calls (
    id               uuid PRIMARY KEY,
    replica_id       uuid NOT NULL REFERENCES api_replicas,
    api_key_id       uuid NOT NULL REFERENCES api_keys,
    -- The name that was asked for.
    alias            text NOT NULL,
    began_at         timestamptz NOT NULL,
    estimated_tokens bigint NOT NULL CHECK (estimated_tokens >= 0),
    estimated_cost   bigint NOT NULL CHECK (estimated_cost >= 0)
);
CREATE INDEX api_calls_by_replica ON api_calls (replica_id);
