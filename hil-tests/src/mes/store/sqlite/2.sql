-- Golden units, which prove a nest at the begin of a shift, are no products: count WHERE NOT golden.
ALTER TABLE results ADD COLUMN golden INTEGER NOT NULL DEFAULT FALSE;
