-- For a while more of a limit that many share: that of an API key, a bot, a model or the deployment. It stands with the limit, so a call
-- looks at no more rows than before. Users have theirs in `limit_boosts`.
SELECT lock_gently('scope_limits IN ACCESS EXCLUSIVE MODE');
ALTER TABLE scope_limits
    ADD COLUMN boost_amount bigint CHECK (boost_amount >= 0),
    ADD COLUMN boost_until  timestamptz,
    ADD CONSTRAINT scope_limits_boost_check CHECK ((boost_amount IS NULL) = (boost_until IS NULL));
