-- The trace a call was part of: the 16 bytes of W3C Trace Context. Null in lines that a release before has written.
SELECT lock_gently('usage, api_calls IN ACCESS EXCLUSIVE MODE');
ALTER TABLE usage ADD COLUMN trace_id uuid;
ALTER TABLE api_calls ADD COLUMN trace_id uuid;
