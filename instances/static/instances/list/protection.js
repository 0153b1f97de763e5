// Which instances are protected: the lock in a row, and what it forbids. Changes are in protecting.js.

import {find, set} from '../elements.js';

export function createProtection() {
    let protections = new Map(); // id → {instanceId, reason, protectedBy, protectedAt}

    // Takes the protections as the service lists them; null: unknown, so that the last known stay.
    function take(listed) {
        if (listed) {
            protections = new Map(listed.map(one => [one.instanceId, one]));
        }
    }

    // A protected instance can only be started.
    function permits(action, id) {
        return action === 'start' || !protections.has(id);
    }

    function updateRow(row, one) {
        const lock = find(row, '.protection');
        const protection = protections.get(one.id);
        const text = protection ? `Protected: ${protection.reason}` : '';
        set(lock, 'hidden', !protection);
        set(lock, 'title', text);
        set(lock, 'ariaLabel', text || null);
    }

    return {take, get: id => protections.get(id), permits, updateRow};
}
