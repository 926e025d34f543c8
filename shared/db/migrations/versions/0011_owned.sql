-- What at Torrentino is this installation's, and what was there before.
SELECT 1;
