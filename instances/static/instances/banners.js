// Banners: why the list can't be refreshed, and the service's own warnings.

import {clone} from './elements.js';
import {LoggedOut, nameFailure} from './service.js';
import {sayClock} from './words.js';

const failureRegion = document.getElementById('failure');
const warningRegion = document.getElementById('warning');

export function showBanners(inventory, warnings) {
    // A login that has ended has its own notice, with the way to log in.
    const hasReason = inventory.failure && !(inventory.failure.error instanceof LoggedOut);
    const failure = hasReason ? sayFailure(inventory.failure) : '';
    show(failureRegion, failure ? [failure] : []);
    // A warning that says the same as the failure stands once.
    show(warningRegion, failure ? warnings.filter(text => !failure.startsWith(text)) : warnings);
}

export function hasBanners() {
    return Boolean(failureRegion.firstElementChild || warningRegion.firstElementChild);
}

function sayFailure({error, since}) {
    return [nameFailure(error), since && `Failing since ${sayClock(since)}.`, 'The page keeps trying.'].filter(Boolean).join(' ');
}

// A banner that stays is not touched, so that it is announced once, when it appears.
function show(region, texts) {
    const shown = new Map([...region.children].map(banner => [banner.textContent, banner]));
    for (const [text, banner] of shown) {
        if (!texts.includes(text)) {
            banner.remove();
        }
    }
    for (const text of texts) {
        if (!shown.has(text)) {
            const banner = clone('banner-template');
            banner.textContent = text;
            region.append(banner);
        }
    }
}
