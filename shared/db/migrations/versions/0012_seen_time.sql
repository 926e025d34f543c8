-- Deadlines that count only time in which the product looked.
SELECT 1;
