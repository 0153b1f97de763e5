// Banners: why the list can't be refreshed, and the service's own warnings. A warning may have a button.

import {clone, make} from './elements.js';
import {LoggedOut, nameFailure, Outage} from './service.js';
import {sayClock, sayLocal, sayStart} from './words.js';

const failureRegion = document.getElementById('failure');
const warningRegion = document.getElementById('warning');

// `warnings` are texts, or {text, label, attributes} with a button.
export function showBanners(inventory, warnings) {
    // A login that has ended has its own notice, with the way to log in.
    const hasReason = inventory.failure && !(inventory.failure.error instanceof LoggedOut);
    const failure = hasReason ? sayFailure(inventory) : '';
    show(failureRegion, failure ? [{text: failure}] : []);
    // A warning that says the same as the failure stands once.
    const notices = warnings.map(one => (typeof one === 'string' ? {text: one} : one));
    const others = failure ? notices.filter(({text}) => !failure.startsWith(text)) : notices;
    show(warningRegion, others.map(one => ({...one, text: sayLocal(one.text)})));
}

export function hasBanners() {
    return Boolean(failureRegion.firstElementChild || warningRegion.firstElementChild);
}

function sayFailure({asOf, failure: {error, since}, instances}) {
    if (error instanceof Outage) {
        // Of Redis: the service says what it means.
        return [error.message, instances && asOf && `This list is from ${sayStart(asOf)}.`].filter(Boolean).join(' ');
    }
    return [nameFailure(error), since && `Failing since ${sayClock(since)}.`, 'The page keeps trying.'].filter(Boolean).join(' ');
}

// A banner that stays is not touched, so that it is announced once, when it appears.
function show(region, notices) {
    const shown = new Map([...region.children].map(banner => [banner.firstChild.data, banner]));
    for (const [text, banner] of shown) {
        if (!notices.some(one => one.text === text)) {
            banner.remove();
        }
    }
    for (const {text, label, attributes} of notices) {
        let banner = shown.get(text);
        if (!banner) {
            banner = clone('banner-template');
            banner.textContent = text;
            region.append(banner);
        }
        // The server's own banners have no button: without the script it would do nothing.
        if (label && !banner.querySelector('button')) {
            banner.append(make('button', {type: 'button', ...attributes}, label));
        }
    }
}
