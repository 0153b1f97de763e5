// The last answer of the service about the account: the instances, their age, and since when they can't be read.

import {getNow} from '../clock.js';
import {fold} from '../order.js';
import {ask} from '../service.js';

// `asOf` is the time of the list in the server's HTML.
export function createInventory(asOf) {
    let instances = null; // as the API lists them; null until the first answer
    let searchTexts = new Map(); // id → the text that a search is compared with
    let etag = '';
    let hasCopy = false;
    let isSyncing = false;
    let failure = null; // {error, since} of the readings that failed; `since` by the server's clock, null if not known

    // Returns the body of /health, or null when it can't be read.
    async function read() {
        let health = null;
        try {
            const [listing, answer] = await Promise.all([
                ask('/api/instances', {headers: etag ? {'If-None-Match': etag} : {}}),
                ask('/health'),
            ]);
            health = await answer.json();
            if (listing.status !== 304 && !listing.ok) {
                throw new Error((await listing.json()).message);
            }
            hasCopy = listing.headers.has('Data-As-Of');
            // Clearing the cache doesn't change the time of the last synchronization.
            asOf = listing.headers.get('Data-As-Of') || health.sync.lastSync || '';
            isSyncing = health.sync.isLocked;
            if (listing.status !== 304) {
                take((await listing.json()).instances);
                etag = listing.headers.get('ETag') || '';
            }
            failure = null;
        } catch (error) {
            isSyncing = false;
            failure = {error, since: failure?.since || getNow()};
        }
        return health;
    }

    function take(listed) {
        instances = listed;
        searchTexts = new Map(listed.map(one => [
            one.id,
            fold([one.name, one.id, one.region, one.clusterId, one.productName, one.productId].join('\n')),
        ]));
    }

    return {
        get instances() {
            return instances;
        },
        get hasCopy() {
            return hasCopy;
        },
        get isSyncing() {
            return isSyncing;
        },
        get asOf() {
            return asOf;
        },
        get failure() {
            return failure;
        },
        read,
        has: id => searchTexts.has(id),
        countGroup: group => instances.filter(one => one.group === group).length,
        // `text` is folded.
        matches: (one, text) => searchTexts.get(one.id).includes(text),
    };
}

// Removes the keys of a map or the members of a set that the account no longer has.
export function removeUnknown(collection, isKnown) {
    for (const id of [...collection.keys()]) {
        if (!isKnown(id)) {
            collection.delete(id);
        }
    }
}
