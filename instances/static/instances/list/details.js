// Open rows: the fields that have no column in the table; a button copies those that a command line needs.

import {clone, set} from '../elements.js';
import {sayAge, sayCost, sayInstanceCost, sayMoment} from '../words.js';
import {removeUnknown} from './inventory.js';

const BILLING = {onDemand: 'On-demand', spot: 'Spot', monthly: 'Monthly'};

export function createDetails({table, protection, annotation, statusLine, render}) {
    const details = new Map(); // id → its open row

    // Returns the open row of an instance, up to date; null when it isn't open.
    function update(one) {
        const detail = details.get(one.id);
        if (!detail) {
            return null;
        }
        // As many as the visitor's role sees: one more would make the table lay out a column that isn't there.
        const columns = [...table.tHead.rows[0].cells].filter(cell => getComputedStyle(cell).display !== 'none');
        set(detail.cells[0], 'colSpan', columns.length);
        protection.updateDetails(detail, one);
        annotation.updateDetails(detail, one);
        const look = JSON.stringify(one);
        if (detail.dataset.shown !== look) {
            detail.dataset.shown = look;
            detail.querySelector('dl').replaceChildren(...describe(one).flatMap(makeEntry));
        }
        return detail;
    }

    function toggle(button, row) {
        const {id} = row.dataset;
        const isOpen = details.delete(id);
        if (!isOpen) {
            const detail = clone('detail-template');
            detail.dataset.id = id;
            details.set(id, detail);
        }
        button.setAttribute('aria-expanded', String(!isOpen));
        render();
    }

    async function copy(button) {
        const words = button.parentElement.querySelector('bdi');
        try {
            await navigator.clipboard.writeText(words.textContent);
            statusLine.tell(`Copied: ${words.textContent}`);
        } catch {
            getSelection().selectAllChildren(words);
            statusLine.tell("The browser doesn't allow copying here. The text is selected.", true);
        }
    }

    return {
        update,
        forgetUnknown: isKnown => removeUnknown(details, isKnown),
        actions: {open: toggle, copy},
    };
}

function describe(one) {
    return [
        {title: 'ID', text: one.id, canBeCopied: true},
        {title: 'Product', text: `${one.productName} (${one.productId})`},
        {title: 'CPUs, memory', text: `${one.cpuNum ?? '?'} CPUs, ${one.memoryGb ?? '?'} GB`},
        {title: 'Image', text: one.imageUrl, canBeCopied: true},
        {title: 'Disk', text: one.rootfsSizeGb === null ? '?' : `${one.rootfsSizeGb} GB`},
        {title: 'Region', text: `${one.region} (${one.clusterId})`},
        {title: 'Billing', text: describeBilling(one)},
        {title: 'Price', text: one.pricePerHour === null ? 'not known' : sayCost(one.pricePerHour)},
        {title: 'Cost now', text: sayInstanceCost(one)},
        {title: 'Owner', text: one.owner},
        {title: 'Project', text: one.project},
        ...describePorts(one.portMappings),
        {title: 'Created', text: sayTime(one.createdAt)},
        {title: 'Last started', text: sayTime(one.lastStartedAt)},
        {title: 'Last stopped', text: sayTime(one.lastStoppedAt)},
        {title: 'Ends', text: one.endTime ? sayTime(one.endTime) : 'never'},
        {title: 'Last changed', text: sayTime(one.changedAt)},
        ...one.statusError ? [{title: "Novita's error", text: `${one.statusError.state} ${one.statusError.message}`}] : [],
    ];
}

function describeBilling({billingMode, spotStatus}) {
    return [BILLING[billingMode] || billingMode, spotStatus].filter(Boolean).join(', ') || '?';
}

function describePorts(mappings) {
    return mappings.length
        ? mappings.map(({port, type, endpoint}) => ({title: `Port ${port ?? '?'} (${type})`, text: endpoint, canBeCopied: true}))
        : [{title: 'Ports', text: 'none'}];
}

function sayTime(time) {
    return time ? `${sayMoment(time)} (${sayAge(time)})` : 'never';
}

function makeEntry({title, text, canBeCopied}) {
    const term = document.createElement('dt');
    const value = document.createElement('dd');
    const words = document.createElement('bdi');
    term.textContent = title;
    words.textContent = text || '–';
    value.append(words);
    if (canBeCopied && text) {
        const button = clone('copy-template');
        button.setAttribute('aria-label', `Copy ${title}`);
        value.append(' ', button);
    }
    return [term, value];
}
