-- How often an item was handed back, and what placed files were found to be.
SELECT 1;
