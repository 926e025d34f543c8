-- What repeated wishes and retries count as.
SELECT 1;
