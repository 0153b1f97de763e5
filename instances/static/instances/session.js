// The login. It can change in another tab while a page is open: then this module renews the CSRF token, or says what to
// do before a button fails.

import {locate} from './root.js';
import {LoggedOut, makeFailure, nameFailure, Outage, Refusal, request} from './service.js';

const ACTION_TIMEOUT_MS = 60000;
const CHECK_MS = 25000;

const notice = document.getElementById('login-notice');
const root = document.getElementById('dashboard');

let token = root ? root.dataset.csrfToken : '';
let renewing = null;
// The page has just come with its token.
let checkAt = performance.now() + CHECK_MS;

// As `renew`, unless that was a moment ago.
export function check() {
    if (isLost() || performance.now() >= checkAt) {
        renew();
    }
}

// Returns the problem with the login as a sentence; '' without a problem, or when the service can't be read.
export function renew() {
    checkAt = performance.now() + CHECK_MS;
    renewing ||= readSession().finally(() => {
        renewing = null;
    });
    return renewing;
}

async function readSession() {
    let session;
    try {
        const answer = await request('/api/session');
        if (!answer.ok) {
            return '';
        }
        session = await answer.json();
    } catch (error) {
        return error instanceof LoggedOut
            ? show('You are logged out.', 'Log in again', locate(`/login/?next=${encodeURIComponent(location.pathname + location.search)}`))
            : '';
    }
    if (session.user !== notice.dataset.user) {
        return show(`You are now logged in as ${session.user}.`, 'Reload the page', location.href);
    }
    token = session.csrfToken;
    for (const field of document.querySelectorAll('input[name=csrfmiddlewaretoken]')) {
        field.value = token;
    }
    // The browsable API's script sends this variable.
    globalThis.csrftoken = token;
    if (root) {
        root.dataset.role = session.role;
    }
    notice.replaceChildren();
    return '';
}

function show(words, cure, address) {
    if (notice.dataset.words !== words || !notice.childElementCount) {
        const line = document.createElement('p');
        const link = document.createElement('a');
        line.className = 'errornote';
        link.href = address;
        link.textContent = cure;
        line.append(`${words} `, link, '.');
        notice.dataset.words = words;
        notice.replaceChildren(line);
    }
    return `${words} ${cure}.`;
}

export function isLost() {
    return notice.childElementCount > 0;
}

export async function send(method, path, body) {
    let answer = await post(method, path, body);
    if (answer.result.code === 'CSRF_FAILED') {
        // The service did nothing, so a second attempt repeats no action. There is no third: it would fail the same way.
        const problem = await renew();
        if (problem) {
            throw new Refusal(`Nothing was done. ${problem}`);
        }
        answer = await post(method, path, body);
    }
    const {result, status} = answer;
    if (!answer.isOk) {
        const words = [result.message, ...Object.values(result.fields || {}), result.suggestion].filter(Boolean).join(' ');
        throw status < 500 ? new Refusal(words) : makeFailure(words, result.code);
    }
    return result;
}

async function post(method, path, body) {
    const headers = {'X-CSRFToken': token};
    const options = {method, headers};
    if (body) {
        headers['Content-Type'] = 'application/json';
        options.body = JSON.stringify(body);
    }
    try {
        const answer = await request(path, options, ACTION_TIMEOUT_MS);
        return {isOk: answer.ok, status: answer.status, result: await answer.json()};
    } catch (error) {
        if (error instanceof LoggedOut) {
            renew();
        }
        throw error instanceof Refusal ? error : new Outage(nameFailure(error), '');
    }
}

// Renews the token when a page is shown again, before a button or a form needs it.
export function watchLogin() {
    addEventListener('pageshow', event => {
        // A page from the browser's history keeps its old token, along with the text in its fields.
        if (event.persisted || performance.getEntriesByType('navigation')[0]?.type === 'back_forward') {
            renew();
        }
    });
    document.addEventListener('visibilitychange', () => {
        if (!document.hidden) {
            renew();
        }
    });
}
