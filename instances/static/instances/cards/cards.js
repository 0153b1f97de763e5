// The cards at the top of the page: what runs, what it costs, what needs attention. The server's words are in cards.py.

import {set, setText} from '../elements.js';
import {getGroupLabel, listGroups} from '../statuses.js';
import {sayAge, sayCost, sayMoment, sayUsd} from '../words.js';
import {needsAttention, REASONS} from './attention.js';

const get = id => document.getElementById(id);

export function createCards({inventory}) {
    const section = get('cards');
    const syncTime = section.querySelector('#figure-sync time');
    const gpuRows = [...section.querySelectorAll('.card-gpus li')];
    const days = Number(section.dataset.longRunningDays);
    const sayReason = {
        error: number => `${number} error${end(number)}`,
        longRunning: number => `${number} up > ${days} day${end(days)}`,
        spotReclaim: number => `${number} spot reclaim${end(number)}`,
    };

    function render() {
        const {hasCopy, isStale} = inventory;
        const instances = hasCopy ? inventory.instances : [];
        const say = text => (hasCopy ? text : '–');
        const running = instances.filter(one => one.group === 'running');
        const gpus = running.reduce((sum, one) => sum + (one.gpuNum || 0), 0);
        setText(get('figure-total'), say(String(instances.length)));
        setText(get('figure-running'), say(String(running.length)));
        setText(get('figure-of'), hasCopy ? `of ${instances.length} · ${gpus} GPU${end(gpus)}` : '');
        show(get('figure-moving'), sayMoving(...['starting', 'stopping'].map(group => (
            instances.filter(one => one.group === group).length
        ))));
        renderSegments(instances);
        renderBurn(instances, hasCopy);
        renderGpus(instances, hasCopy);
        setText(get('figure-stale'), isStale ? ' · stale' : '');
        renderAttention(instances, hasCopy, isStale);
    }

    function renderSegments(instances) {
        const bar = get('segments');
        let begin = 0;
        for (const part of bar.children) {
            const number = instances.filter(one => part.classList.contains(`is-${one.group}`)).length;
            const width = instances.length ? 100 * number / instances.length : 0;
            setAttribute(part, 'x', `${begin.toFixed(2)}%`);
            setAttribute(part, 'width', `${width.toFixed(2)}%`);
            begin += width;
        }
        const counts = listGroups().map(group => [inventory.countGroup(group), getGroupLabel(group).toLowerCase()]);
        const sentence = counts.filter(([number]) => number).map(words => words.join(' ')).join(', ');
        setAttribute(bar, 'aria-label', instances.length ? sentence : '');
    }

    function renderBurn(instances, hasCopy) {
        const perHour = instances.reduce((sum, one) => sum + (one.costPerHour || 0), 0);
        const unknown = instances.filter(one => one.costPerHour === null).length;
        // Without any known price, the sum is unknown, too.
        const isKnown = hasCopy && (perHour > 0 || !unknown);
        setText(get('figure-cost'), isKnown ? sayCost(perHour) : '–');
        setText(get('figure-day'), isKnown ? `≈ ${sayUsd(24 * perHour, 0)}/day` : '');
        setText(get('figure-unknown'), unknown ? `${isKnown ? ' · ' : ''}${unknown} price${end(unknown)} unknown` : '');
    }

    function renderGpus(instances, hasCopy) {
        const costs = new Map();
        for (const {productName, costPerHour} of instances) {
            costs.set(productName, (costs.get(productName) || 0) + (costPerHour || 0));
        }
        const found = [...costs].filter(([, cost]) => cost > 0).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
        show(get('no-gpus'), found.length ? '' : hasCopy ? 'Nothing costs anything now.' : '–');
        gpuRows.forEach((row, at) => {
            const [name, cost] = found[at] || ['', 0];
            row.hidden = !cost;
            if (cost) {
                const [link, bar, amount] = row.children;
                setText(link, name || 'Unknown GPU');
                setAttribute(link, 'href', `?${new URLSearchParams({gpu: name})}`);
                setAttribute(bar.lastElementChild, 'width', `${(100 * cost / found[0][1]).toFixed(1)}%`);
                setText(amount, sayUsd(cost));
            }
        });
    }

    function renderAttention(instances, hasCopy, isStale) {
        const counts = Object.fromEntries(REASONS.map(reason => [reason, 0]));
        let number = 0;
        for (const one of instances) {
            const reasons = REASONS.filter(reason => needsAttention(one, reason));
            number += reasons.length > 0;
            for (const reason of reasons) {
                counts[reason] += 1;
            }
        }
        show(get('figure-attention'), number ? String(number) : hasCopy ? '' : '–');
        for (const link of get('reasons').querySelectorAll('[data-reason]')) {
            const {reason} = link.dataset;
            show(link, counts[reason] ? sayReason[reason](counts[reason]) : '');
        }
        get('stale').hidden = !isStale;
        get('calm').hidden = Boolean(number || isStale || !hasCopy);
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

function sayMoving(starting, stopping) {
    if (starting && stopping) {
        return `${starting + stopping} moving`;
    }
    return starting ? `${starting} starting` : stopping ? `${stopping} stopping` : '';
}

function end(number) {
    return number === 1 ? '' : 's';
}

function show(element, text) {
    setText(element, text);
    set(element, 'hidden', !text);
}

function setAttribute(element, name, value) {
    if (element.getAttribute(name) !== value) {
        element.setAttribute(name, value);
    }
}
