-- What a store may hold after a disk, another version or a person was at it. One statement a line; after each group of them
-- the daemon must start, list what is sound, and find the kernel as it should be. See tests/faults/test_corpus.py.
INSERT INTO objects VALUES ('network', 'x', '{"id": 5}');
INSERT INTO objects VALUES ('container', 'y', 'not JSON at all');
INSERT INTO objects VALUES ('nonsense', 'z', '{}');
INSERT INTO leases VALUES ('no-such-network', '10.9.9.9', 'nobody');
INSERT INTO leases SELECT pool, '10.51.0.77', 'nobody' FROM leases LIMIT 1;
INSERT INTO leases SELECT pool, 'not an address', 'nobody' FROM leases LIMIT 1;
INSERT INTO intents VALUES ('i1', 'create network half');

UPDATE objects SET body = json_remove(body, '$.attachments') WHERE kind = 'container';

UPDATE objects SET body = json_set(body, '$.state.status', 'dreaming') WHERE kind = 'container' AND json_extract(body, '$.name') = 'idle';
DELETE FROM leases;

DELETE FROM objects WHERE kind = 'network' AND json_extract(body, '$.name') = 'net-a';

DELETE FROM objects WHERE kind = 'network' AND json_extract(body, '$.name') = 'bridge';

UPDATE objects SET body = json_set(body, '$.driver', 'gone') WHERE kind = 'network' AND json_extract(body, '$.name') = 'net-b';
UPDATE objects SET body = json_set(body, '$.subnets[0].subnet', '10.51.0.0/99') WHERE kind = 'network' AND json_extract(body, '$.name') = 'net-c';

DELETE FROM settings;
