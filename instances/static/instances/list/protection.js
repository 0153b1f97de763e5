// Protection of one instance: the mark in its row, and the form and the question in its details.

import {find, set, setDisabled, setText} from '../elements.js';
import {send} from '../session.js';
import {removeUnknown} from './inventory.js';

export function createProtection({messages, refreshAnew, render}) {
    let protections = new Map(); // id → {instanceId, reason, protectedBy, protectedAt}
    const questions = new Map(); // id → 'protect' or 'unprotect', while its details show that question

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
        const protection = protections.get(one.id);
        setText(find(row, '.protection'), protection ? `🔒 Protected: ${protection.reason}` : '');
    }

    function updateDetails(detail, one) {
        const protection = protections.get(one.id);
        const name = one.name || one.id;
        if (questions.get(one.id) === (protection ? 'protect' : 'unprotect')) {
            // Another visitor was faster.
            questions.delete(one.id);
        }
        const question = questions.get(one.id);
        const focused = detail.contains(document.activeElement) ? document.activeElement : null;
        const protect = detail.querySelector('[data-do=protect]');
        const unprotect = detail.querySelector('[data-do=unprotect]');
        setText(detail.querySelector('.protected-words'), sayProtection(protection));
        set(protect, 'ariaLabel', `Protect ${name}…`);
        set(unprotect, 'ariaLabel', `Remove protection from ${name}`);
        set(protect, 'hidden', Boolean(protection || question));
        set(unprotect, 'hidden', Boolean(!protection || question));
        set(detail.querySelector('form'), 'hidden', question !== 'protect');
        set(detail.querySelector('.confirm'), 'hidden', question !== 'unprotect');
        setText(detail.querySelector('.confirm span'),
            `Remove protection from ${name}? It can then be stopped and restarted, and Stop all includes it.`);
        if (focused?.closest('[hidden]')) {
            (protection ? unprotect : protect).focus({preventScroll: true});
        }
    }

    function sayProtection(protection) {
        if (!protection) {
            return 'Not protected. Stop all includes it.';
        }
        const when = new Date(protection.protectedAt).toLocaleString();
        const by = protection.protectedBy ? ` by ${protection.protectedBy}` : '';
        return `Protected${by} at ${when}: ${protection.reason}`;
    }

    function openQuestion(detail, question) {
        questions.set(detail.dataset.id, question);
        render();
        detail.querySelector(question === 'protect' ? 'input' : '[data-do=unprotect-now]').focus();
    }

    // Returns whether the element lies in details with an open question.
    function takeBack(element) {
        const detail = element.closest('tr.detail');
        const question = detail && questions.get(detail.dataset.id);
        if (!question) {
            return false;
        }
        questions.delete(detail.dataset.id);
        render();
        detail.querySelector(`[data-do=${question}]`).focus();
        return true;
    }

    function submit(form, detail) {
        const reason = form.elements.reason.value.trim();
        if (reason) {
            change(detail, 'POST', {reason});
        } else {
            form.elements.reason.focus();
            messages.refuse(detail.dataset.id, 'Enter a reason for the protection.');
            render();
        }
    }

    async function change(detail, method, body) {
        const {id} = detail.dataset;
        const button = detail.querySelector(`[data-busy=${method}]`);
        if (button.getAttribute('aria-disabled') === 'true') {
            return;
        }
        setDisabled(button, true);
        try {
            const result = await send(method, `/api/instances/${encodeURIComponent(id)}/protect`, body);
            messages.tell(id, `${result.message.replace(/\.$/, '')}.`);
            detail.querySelector('form').reset();
        } catch (error) {
            messages.fail(id, error);
        }
        setDisabled(button, false);
        render();
        await refreshAnew();
    }

    return {
        take,
        permits,
        updateRow,
        updateDetails,
        takeBack,
        forgetUnknown: isKnown => removeUnknown(questions, isKnown),
        actions: {
            protect: (_button, detail) => openQuestion(detail, 'protect'),
            'protect-now': submit,
            unprotect: (_button, detail) => openQuestion(detail, 'unprotect'),
            'unprotect-now': (_button, detail) => change(detail, 'DELETE'),
            'protection-cancel': takeBack,
        },
    };
}
