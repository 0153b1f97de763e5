// The cards at the top of the page: what runs, what it costs, what needs attention. The server's words are in cards.py.

import {make, set, setText} from '../elements.js';
import {getGroupLabel, listGroups} from '../statuses.js';
import {sayAge, sayMoment, sayNumber, sayUsd} from '../words.js';
import {needsAttention, REASONS} from './attention.js';

const SHOWN_GPUS = 3;
// A burn rate of so much is shown without cents: the figure has room for six characters.
const NO_CENTS_USD = 1000;
// The segments of the bar, from the left.
const SEGMENTS = ['running', 'starting', 'stopping', 'other', 'stopped', 'gone'];
const SYNC_RUNS = '/admin/instances/syncrun/';

const get = id => document.getElementById(id);

export function createCards({inventory}) {
    const days = Number(get('cards').dataset.longRunningDays);
    const syncTime = get('figure-sync').firstElementChild;
    const sayReason = {
        error: number => `${sayNumber(number)} error${end(number)}`,
        longRunning: number => `${sayNumber(number)} up > ${days} day${end(days)}`,
        spotReclaim: number => `${sayNumber(number)} spot reclaim${end(number)}`,
        idle: number => `${sayNumber(number)} idle`,
    };

    function render() {
        const {hasCopy} = inventory;
        const instances = hasCopy ? inventory.instances : [];
        const say = text => (hasCopy ? text : '–');
        const counts = {};
        let gpus = 0;
        for (const {group, gpuNum} of instances) {
            counts[group] = (counts[group] || 0) + 1;
            gpus += group === 'running' ? gpuNum || 0 : 0;
        }
        setText(get('figure-total'), say(sayNumber(instances.length)));
        setText(get('figure-running'), say(sayNumber(counts.running || 0)));
        setText(get('figure-of'), hasCopy ? `of ${sayNumber(instances.length)} ·\u00a0${sayNumber(gpus)}\u00a0GPU${end(gpus)}` : '');
        show(get('figure-moving'), sayMoving(counts.starting, counts.stopping));
        renderSegments(counts, instances.length);
        renderBurn(instances);
        renderGpus(instances);
        renderAttention(instances);
    }

    function renderSegments(counts, total) {
        const bar = get('segments');
        let begin = 0;
        const parts = SEGMENTS.filter(group => counts[group]).map(group => {
            const width = 100 * counts[group] / total;
            begin += width;
            return {group, x: `${(begin - width).toFixed(2)}%`, width: `${width.toFixed(2)}%`};
        });
        redraw(bar, parts, ({group, x, width}) => makeBar({class: `is-${group}`, x, width}));
        const present = listGroups().filter(group => counts[group]);
        bar.setAttribute('role', total ? 'img' : 'none');
        if (total) {
            const words = present.map(group => `${sayNumber(counts[group])} ${getGroupLabel(group).toLowerCase()}`);
            bar.setAttribute('aria-label', words.join(', '));
        } else {
            bar.removeAttribute('aria-label');
        }
    }

    function renderBurn(instances) {
        const {hasCopy, isStale} = inventory;
        const perHour = instances.reduce((sum, one) => sum + (one.costPerHour || 0), 0);
        const unknown = instances.filter(one => one.costPerHour === null).length;
        // Without any known price, the sum is unknown, too.
        const isKnown = hasCopy && (perHour > 0 || !unknown);
        setText(get('figure-cost'), isKnown ? `${sayUsd(perHour, perHour < NO_CENTS_USD ? 2 : 0)}/h` : '–');
        setText(get('figure-day'), [
            isKnown && `≈ ${sayUsd(24 * perHour, 0)}/day`,
            unknown && `${sayNumber(unknown)} price${end(unknown)} unknown`,
            hasCopy && isStale && 'stale',
        ].filter(Boolean).join(' · '));
    }

    function renderGpus(instances) {
        const costs = new Map();
        for (const {productName, costPerHour} of instances) {
            costs.set(productName, (costs.get(productName) || 0) + (costPerHour || 0));
        }
        const found = [...costs].filter(([, cost]) => cost > 0).sort(compareCosts).slice(0, SHOWN_GPUS);
        const rows = found.map(([name, cost]) => ({name, cost: sayUsd(cost), width: `${(100 * cost / found[0][1]).toFixed(1)}%`}));
        const none = inventory.hasCopy ? 'Nothing costs anything now.' : '–';
        redraw(get('gpus'), rows.length ? rows : [none], row => (row.name === undefined ? row : make(
            'p',
            {},
            make('a', {href: `?${new URLSearchParams({gpu: row.name})}`}, row.name || 'Unknown GPU'),
            makeTrack(row.width),
            make('span', {}, row.cost),
        )));
    }

    function renderAttention(instances) {
        const {hasCopy, isStale} = inventory;
        const counts = Object.fromEntries(REASONS.map(reason => [reason, 0]));
        let number = 0;
        for (const one of instances) {
            const reasons = REASONS.filter(reason => needsAttention(one, reason));
            number += reasons.length > 0;
            for (const reason of reasons) {
                counts[reason] += 1;
            }
        }
        const links = REASONS.filter(reason => counts[reason]).map(reason => [sayReason[reason](counts[reason]), `?attention=${reason}`]);
        if (hasCopy && isStale) {
            links.push(['stale data', SYNC_RUNS]);
        }
        show(get('figure-attention'), number ? sayNumber(number) : hasCopy ? '' : '–');
        const words = links.length || !hasCopy ? links : ['Nothing needs attention'];
        redraw(get('reasons'), words, one => (typeof one === 'string' ? one : make('a', {href: one[1]}, one[0])));
    }

    function showRedis(state) {
        setText(get('figure-redis'), state);
    }

    function tick() {
        const {asOf, isSyncing} = inventory;
        set(syncTime, 'dateTime', asOf);
        setText(syncTime, asOf ? sayAge(asOf) : isSyncing ? 'synchronizing…' : 'unknown');
        set(syncTime, 'title', asOf ? sayMoment(asOf) : '');
    }

    return {render, showRedis, tick};
}

// The dearest first. Sums of floats differ in their last digits.
function compareCosts([name, cost], [otherName, otherCost]) {
    return Math.round(1e5 * (otherCost - cost)) || (name < otherName ? -1 : 1);
}

function sayMoving(starting, stopping) {
    if (starting && stopping) {
        return `${sayNumber(starting + stopping)} moving`;
    }
    return starting ? `${sayNumber(starting)} starting` : stopping ? `${sayNumber(stopping)} stopping` : '';
}

function end(number) {
    return number === 1 ? '' : 's';
}

function show(element, text) {
    setText(element, text);
    set(element, 'hidden', !text);
}

const drawn = new WeakMap(); // element → what it shows

// Draws the content of an element anew if it differs: a link keeps the focus while nothing changes.
function redraw(element, parts, draw) {
    const text = JSON.stringify(parts);
    if (drawn.get(element) !== text) {
        drawn.set(element, text);
        element.replaceChildren(...parts.flatMap(part => [draw(part), ' ']));
    }
}

function makeTrack(width) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    svg.setAttribute('aria-hidden', 'true');
    svg.append(makeBar({width: '100%'}), makeBar({class: 'share', width}));
    return svg;
}

function makeBar(attributes) {
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    for (const [name, value] of Object.entries({...attributes, height: '6'})) {
        bar.setAttribute(name, value);
    }
    return bar;
}
