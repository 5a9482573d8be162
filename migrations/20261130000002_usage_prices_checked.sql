-- That all lines are as the constraints say: read once for all of them, while others write.
DO $$
BEGIN
    EXECUTE (
        SELECT 'ALTER TABLE usage ' || string_agg(format('VALIDATE CONSTRAINT %I', conname), ', ')
        FROM pg_constraint WHERE conrelid = 'usage'::regclass AND NOT convalidated
    );
END $$;
