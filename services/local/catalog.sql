-- The part of the catalog server's schema 9 that this project reads, and what its tables refer to.
-- Only the sample and the tests make such a file; the real one is the catalog server's.
PRAGMA user_version = 100008;

CREATE TABLE artists (
    rowid INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    followers_total INTEGER NOT NULL,
    popularity INTEGER NOT NULL,
    artist_available INTEGER NOT NULL DEFAULT 0,
    mbid TEXT,
    mbid_lookup_status INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX idx_artists_id ON artists (id);
CREATE INDEX idx_artists_available ON artists (artist_available);

CREATE TABLE albums (
    rowid INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    album_type TEXT NOT NULL,
    external_id_upc TEXT,
    external_id_amgid TEXT,
    label TEXT NOT NULL,
    popularity INTEGER NOT NULL,
    release_date TEXT NOT NULL,
    release_date_precision TEXT NOT NULL,
    album_availability TEXT NOT NULL DEFAULT 'missing',
    track_count INTEGER,
    total_duration_ms INTEGER
);
CREATE INDEX idx_albums_id ON albums (id);
CREATE INDEX idx_albums_upc ON albums (external_id_upc);
CREATE INDEX idx_albums_availability ON albums (album_availability);
CREATE INDEX idx_album_fingerprint ON albums (track_count, total_duration_ms);

CREATE TABLE tracks (
    rowid INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    album_rowid INTEGER NOT NULL,
    track_number INTEGER NOT NULL,
    external_id_isrc TEXT,
    popularity INTEGER NOT NULL,
    disc_number INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    explicit INTEGER NOT NULL,
    language TEXT,
    audio_uri TEXT,
    track_available INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX idx_tracks_id ON tracks (id);
CREATE INDEX idx_tracks_album ON tracks (album_rowid);
CREATE INDEX idx_tracks_isrc ON tracks (external_id_isrc);
CREATE INDEX idx_tracks_available ON tracks (track_available);

CREATE TABLE track_artists (
    track_rowid INTEGER NOT NULL,
    artist_rowid INTEGER NOT NULL REFERENCES artists (rowid) ON DELETE CASCADE,
    role INTEGER
);
CREATE INDEX idx_track_artists_track ON track_artists (track_rowid);
CREATE INDEX idx_track_artists_artist ON track_artists (artist_rowid);

CREATE TABLE artist_albums (
    artist_rowid INTEGER NOT NULL,
    album_rowid INTEGER NOT NULL,
    is_appears_on INTEGER NOT NULL,
    is_implicit_appears_on INTEGER NOT NULL,
    index_in_album INTEGER,
    UNIQUE (artist_rowid, album_rowid, is_appears_on)
);
CREATE INDEX idx_artist_albums_artist ON artist_albums (artist_rowid);
CREATE INDEX idx_artist_albums_album ON artist_albums (album_rowid);

CREATE TABLE artist_genres (artist_rowid INTEGER NOT NULL, genre TEXT NOT NULL);
CREATE INDEX idx_artist_genres_artist ON artist_genres (artist_rowid);

CREATE TABLE album_images (
    album_rowid INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, url TEXT NOT NULL
);
CREATE TABLE artist_images (
    artist_rowid INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, url TEXT NOT NULL
);
