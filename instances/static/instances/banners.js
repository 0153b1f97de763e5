// Banners: why the list can't be refreshed, and the service's own warnings.

import {clone} from './elements.js';
import {LoggedOut, nameFailure} from './service.js';
import {sayClock} from './words.js';

const failureRegion = document.getElementById('failure');
const warningRegion = document.getElementById('warning');

export function showBanners(inventory, warnings) {
    const failure = inventory.failure ? sayFailure(inventory) : '';
    show(failureRegion, failure ? [failure] : []);
    // A warning that says the same as the failure stands once.
    show(warningRegion, failure ? warnings.filter(text => !failure.startsWith(text)) : warnings);
}

export function hasBanners() {
    return Boolean(failureRegion.firstElementChild || warningRegion.firstElementChild);
}

function sayFailure({failure: {error, since}, instances}) {
    const clock = since ? sayClock(since) : '';
    if (error instanceof LoggedOut) {
        return `Not refreshed${clock && ` since ${clock}`}: you are logged out.`;
    }
    const words = [nameFailure(error), clock && `Failing since ${clock}.`, instances && 'The list below is older.'];
    return words.filter(Boolean).join(' ');
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
