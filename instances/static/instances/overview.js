// The overview of the service: its health, the newest operations, the protections, and the list's revision.

import {learn} from './clock.js';
import {request} from './service.js';

export function createOverview() {
    const first = document.getElementById('overview');
    let value = null; // the last answer
    let etag = '';
    let isReachable = false;

    // Returns whether there is something new. Without `isWhole` the service says only whether anything has changed.
    async function read(isWhole) {
        if (value === null) {
            takeFirst();
            return true;
        }
        try {
            return await readNew(isWhole);
        } catch (error) {
            isReachable = false;
            throw error;
        }
    }

    async function readNew(isWhole) {
        const answer = await request('/api/overview', {headers: etag && !isWhole ? {'If-None-Match': etag} : {}});
        if (answer.status === 304) {
            isReachable = true;
            return false;
        }
        const body = await answer.json();
        if (!answer.ok) {
            throw new Error([body.message, body.suggestion].filter(Boolean).join(' '));
        }
        value = body;
        isReachable = true;
        etag = answer.headers.get('ETag') || '';
        return true;
    }

    // The page brings its first overview along. It was made after the request for the page, at 0 of the page's clock.
    function takeFirst() {
        ({etag, overview: value} = JSON.parse(first.textContent));
        isReachable = true;
        learn(value.health.timestamp, 0);
    }

    return {
        get value() {
            return value;
        },
        // Whether the last request for it was answered.
        get isReachable() {
            return isReachable;
        },
        read,
    };
}
