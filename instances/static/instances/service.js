// Asking the service: with a timeout each time, and a failure in words.

const TIMEOUT_MS = 20000;
const ACTION_TIMEOUT_MS = 60000;

// The service's own no; what was asked for did not begin. Any other error leaves that open.
export class Refusal extends Error {}

export async function ask(path, options, timeout) {
    const answer = await fetch(path, {
        cache: 'no-store',
        credentials: 'same-origin',
        signal: AbortSignal.timeout(timeout || TIMEOUT_MS),
        ...options,
        headers: {Accept: 'application/json', ...(options && options.headers)},
    });
    if (answer.status === 401) {
        throw new Refusal('You are logged out: reload the page to log in.');
    }
    return answer;
}

export async function send(method, path, body) {
    const headers = {'X-CSRFToken': document.getElementById('dashboard').dataset.csrfToken};
    const options = {method, headers};
    if (body) {
        headers['Content-Type'] = 'application/json';
        options.body = JSON.stringify(body);
    }
    let answer, result;
    try {
        answer = await ask(path, options, ACTION_TIMEOUT_MS);
        result = await answer.json();
    } catch (error) {
        throw error instanceof Refusal ? error : new Error(nameFailure(error));
    }
    if (!answer.ok) {
        const words = [result.message, ...Object.values(result.fields || {}), result.suggestion].filter(Boolean).join(' ');
        throw answer.status < 500 ? new Refusal(words) : new Error(words);
    }
    return result;
}

export async function read(path) {
    let answer, result;
    try {
        answer = await ask(path);
        result = await answer.json();
    } catch (error) {
        throw new Error(nameFailure(error));
    }
    if (!answer.ok) {
        throw new Error(result.message);
    }
    return {result, now: Date.parse(answer.headers.get('Date')) || Date.now()};
}

export function nameFailure(error) {
    if (error.name === 'TimeoutError') {
        return 'The service does not answer in time.';
    }
    return error instanceof TypeError || error instanceof SyntaxError ? "The service can't be reached." : error.message;
}
