// The facts of an instance as a list of terms and values, which change in place: a selected text stays selected. The
// page without a script has the same words: details.py.

import {getNow} from '../clock.js';
import {make, set, setText} from '../elements.js';
import {getLabel} from '../statuses.js';
import {sayAge, sayCost, sayInstanceCost, sayMoment} from '../words.js';

const BILLING = {onDemand: 'On-demand', spot: 'Spot', monthly: 'Monthly'};
const UNREAD = '…';
const MONTH_MS = 30 * 86_400_000;
const SOURCES = {instance: ', from this instance at Novita', product: ", from Novita's price list"};

// Returns {title, text, copy, link, isError} of each fact: `copy` is what a button copies, `link` an address to open.
// Before `one` was read, it has the fields of its row.
export function describe(one) {
    const sayRead = say => (one.portMappings ? say() : UNREAD);
    const error = one.statusError ? [one.statusError.state, one.statusError.message].filter(Boolean).join(': ') : '';
    return [
        ...error ? [{title: "Novita's error", text: error, isError: true}] : [],
        {title: 'ID', text: one.id, copy: one.id},
        {title: 'Status', text: sayStatus(one.status)},
        {title: 'GPU', text: `${one.gpuNum ? `${one.gpuNum} × ` : ''}${one.productName}`},
        {title: 'CPU, memory', text: sayRead(() => `${one.cpuNum ?? '?'} CPUs, ${one.memoryGb ?? '?'} GB`)},
        {title: 'Disk', text: sayRead(() => one.rootfsSizeGb === null ? '' : `${one.rootfsSizeGb} GB`)},
        {title: 'Image', text: sayRead(() => one.imageUrl), copy: one.imageUrl},
        {title: 'Region', text: one.region},
        {title: 'Cluster ID', text: one.clusterId},
        {title: 'Product ID', text: one.productId},
        {title: 'Billing', text: BILLING[one.billingMode] || one.billingMode},
        ...one.spotStatus ? [{title: 'Spot state', text: one.spotStatus}] : [],
        {title: 'Created', text: sayTime(one.createdAt)},
        {title: 'Last started', text: sayTime(one.lastStartedAt)},
        {title: 'Last stopped', text: sayRead(() => sayTime(one.lastStoppedAt))},
        {title: 'Ends', text: sayRead(() => sayTime(one.endTime))},
        {title: 'Last changed', text: sayTime(one.changedAt)},
    ];
}

// The word for people, and Novita's own where that differs.
function sayStatus(status) {
    const label = getLabel(status);
    return label.toLowerCase() === status.toLowerCase() ? label : `${label} (${status})`;
}

export function describePorts({portMappings}) {
    return portMappings?.length ? portMappings.flatMap(describePort) : [{title: 'Ports', text: portMappings ? 'none' : UNREAD}];
}

function describePort({port, type, endpoint}) {
    const title = `Port ${port ?? '?'}${type ? ` (${type})` : ''}`;
    const [, host, number] = /^([\w.-]+):(\d+)$/.exec(endpoint) || [];
    const command = host && (type === 'ssh' || port === 22) ? `ssh root@${host} -p ${number}` : '';
    return [
        {title, text: endpoint, copy: endpoint, link: findLink(type, endpoint)},
        ...command ? [{title: 'SSH', text: command, copy: command}] : [],
    ];
}

// Only an address of the web becomes a link: an endpoint is a text from outside.
function findLink(type, endpoint) {
    const text = /^https?$/.test(type) && !endpoint.includes('://') ? `${type}://${endpoint}` : endpoint;
    return /^https?:/.test(text) && URL.canParse(text) ? text : '';
}

// `month` is the report of this instance for the last 30 days; null until it was read.
export function describeCost(one, {month, error}) {
    return [
        {title: 'Price', text: one.pricePerHour === null ? 'not known' : `${sayCost(one.pricePerHour)}${SOURCES[one.priceSource] || ''}`},
        {title: 'Cost now', text: sayInstanceCost(one)},
        {title: 'Since the start', text: saySpent(one)},
        {title: 'Last 30 days', text: error || (month === null ? '…' : sayMonth(month, one)), isError: Boolean(error)},
    ];
}

function saySpent({group, prepaid, pricePerHour, lastStartedAt}) {
    const now = getNow();
    if (group !== 'running' || !lastStartedAt || now === null) {
        return '';
    }
    const hours = Math.max(0, now - new Date(lastStartedAt)) / 3_600_000;
    return prepaid ? 'prepaid' : pricePerHour === null ? 'not known' : `≈ ${sayUsd(hours * pricePerHour)} (${sayHours(hours)} at ${sayCost(pricePerHour)})`;
}

// Says what the ledger knows, and what it doesn't.
function sayMonth({cost, gpuHours, gapSeconds, inferredSeconds, unpricedSeconds, since}, {createdAt}) {
    const [gap, inferred, unpriced] = [gapSeconds, inferredSeconds, unpricedSeconds].map(seconds => seconds / 3600);
    const isExact = !gapSeconds && !inferredSeconds && !unpricedSeconds;
    const isShorter = since && new Date(since) > Math.max(new Date(createdAt ?? 0), getNow() - MONTH_MS);
    const amount = cost === null ? 'cost not known' : `${isExact ? '' : '≈ '}${sayUsd(cost)}`;
    return [
        `${amount}, ${gpuHours.toLocaleString('en-US', {maximumFractionDigits: 1})} GPU hours.`,
        isShorter && `Recorded since ${sayMoment(since)}.`,
        gapSeconds && `Not included: ${sayHours(gap)} that nobody observed.`,
        unpricedSeconds && `Not included: ${sayHours(unpriced)} at a price that is not known.`,
        inferredSeconds && `Inferred from Novita's times: ${sayHours(inferred)}.`,
    ].filter(Boolean).join(' ');
}

function sayUsd(amount) {
    return `$${amount.toLocaleString('en-US', {minimumFractionDigits: 2, maximumFractionDigits: 2})}`;
}

function sayHours(hours) {
    return hours < 1 ? `${Math.ceil(hours * 60)} min` : hours < 48 ? `${hours.toFixed(1)} h` : `${Math.floor(hours / 24)} days`;
}

function sayTime(time) {
    return time ? `${sayMoment(time)} (${sayAge(time)})` : 'never';
}

export function makeSection(title, ...children) {
    return make('section', {role: 'group', 'aria-label': title, 'data-needs-instance': ''}, make('h3', {}, title), ...children);
}

// Shows the facts in a list, and changes only what differs.
export function fill(list, facts) {
    const titles = facts.map(fact => `${fact.title}${fact.copy ? ' copy' : ''}${fact.link ? ' link' : ''}`).join('\n');
    if (list.dataset.titles !== titles) {
        list.dataset.titles = titles;
        list.replaceChildren(...facts.flatMap(makeEntry));
    }
    for (const [at, {text, copy, link, isError}] of facts.entries()) {
        const value = list.children[2 * at + 1];
        setText(value.querySelector('bdi'), text || '–');
        value.classList.toggle('is-error', Boolean(isError));
        if (copy) {
            set(value.querySelector('button').dataset, 'text', copy);
        }
        if (link) {
            set(value.querySelector('a'), 'href', link);
        }
    }
}

function makeEntry({title, copy, link}) {
    const words = make('bdi', {});
    return [
        make('dt', {}, title),
        make('dd', {},
            link ? make('a', {target: '_blank', rel: 'noopener noreferrer'}, words) : words,
            ...copy ? [make('button', {
                type: 'button',
                class: 'copy',
                'aria-label': `Copy ${title}`,
                'data-do': 'copy',
            }, 'Copy')] : []),
    ];
}
