// The last answers of the service about the account: the instances, their age, and since when they can't be read.

import {getNow} from '../clock.js';
import {fold} from '../order.js';
import {Outage, request} from '../service.js';

// The fields that rows, filters, the search and the order need; the drawer reads the rest of one instance (recordings.js).
// `changedAt` tells it when. In this order a large list is compressed best.
const FIELDS = [
    ...['id', 'createdAt', 'name', 'region', 'clusterId', 'group', 'owner', 'prepaid', 'productName', 'productId', 'spotStatus', 'status'],
    ...['billingMode', 'statusError', 'lastStartedAt', 'pricePerHour', 'gpuNum', 'costPerHour', 'actions', 'project', 'changedAt'],
];
const PATH = `/api/instances?fields=${FIELDS}`;

// `asOf` is the time of the list in the server's HTML.
export function createInventory({overview, asOf}) {
    let instances = null; // as the API lists them; null until the first answer
    let byId = new Map();
    const searchTexts = new WeakMap(); // instance → the text that a search is compared with
    let revision = null; // of the instances
    let hasCopy = Boolean(asOf);
    let isSyncing = false;
    let isStale = false;
    let failure = null; // {error, since} of the readings that failed; `since` by the server's clock, null if not known

    // Returns whether there is something new to show.
    async function read(isWhole) {
        try {
            const isNew = await overview.read(isWhole);
            if (!isNew && failure === null) {
                return false;
            }
            const {services, sync, warnings} = overview.value.health;
            if (services.redis === 'down') {
                throw new Outage(warnings[0], 'redis');
            }
            if (overview.value.revision === null || overview.value.revision !== revision) {
                await readList(overview.value.revision);
            }
            hasCopy = sync.available;
            // Clearing the cache doesn't change the time of the last synchronization.
            asOf = sync.lastSync || '';
            isSyncing = sync.isLocked;
            isStale = sync.isStale;
            failure = null;
        } catch (error) {
            isSyncing = false;
            failure = {error, since: failure?.since || getNow()};
        }
        return true;
    }

    async function readList(wanted) {
        // A page that is opened again has the list in the browser's cache.
        const isFirst = instances === null && wanted !== null;
        let answer = isFirst ? await request(PATH, {cache: 'force-cache'}) : null;
        if (answer === null || getRevision(answer) !== wanted) {
            answer?.body?.cancel();
            answer = await request(PATH, {cache: 'no-cache'});
        }
        const body = await answer.json();
        if (!answer.ok) {
            throw new Error([body.message, body.suggestion].filter(Boolean).join(' '));
        }
        take(body.instances);
        revision = getRevision(answer);
    }

    // Keeps the objects of unchanged instances, so that the table compares objects instead of fields.
    function take(listed) {
        instances = listed.map(one => {
            const before = byId.get(one.id);
            return before && isSame(before, one) ? before : one;
        });
        byId = new Map(instances.map(one => [one.id, one]));
    }

    function getSearchText(one) {
        let text = searchTexts.get(one);
        if (text === undefined) {
            text = fold([one.name, one.id, one.region, one.clusterId, one.productName, one.productId, one.owner, one.project].join('\n'));
            searchTexts.set(one, text);
        }
        return text;
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
        get isStale() {
            return isStale;
        },
        get asOf() {
            return asOf;
        },
        get failure() {
            return failure;
        },
        read,
        has: id => byId.has(id),
        get: id => byId.get(id),
        countGroup: group => instances.filter(one => one.group === group).length,
        // `text` is folded.
        matches: (one, text) => getSearchText(one).includes(text),
    };
}

function getRevision(answer) {
    const number = /^W\/"(\d+)"$/.exec(answer.headers.get('ETag'))?.[1];
    return number ? Number(number) : null;
}

// Compares parsed JSON.
function isSame(before, after) {
    if (before === after || before === null || typeof before !== 'object' || after === null || typeof after !== 'object') {
        return before === after;
    }
    const names = Object.keys(after);
    return names.length === Object.keys(before).length && names.every(name => isSame(before[name], after[name]));
}

// Removes the keys of a map or the members of a set that the account no longer has.
export function removeUnknown(collection, isKnown) {
    for (const id of [...collection.keys()]) {
        if (!isKnown(id)) {
            collection.delete(id);
        }
    }
}
