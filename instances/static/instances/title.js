// The title and the icon of the browser's tab: the number of running instances, an operation's progress, a sign for trouble.

import {sayNumber} from './words.js';

// `running` is null while it isn't known.
export function showTitle({running, operation, hasTrouble}) {
    document.title = `${hasTrouble ? '⚠ ' : ''}${operation ? `${operation} – ` : running !== null ? `(${sayNumber(running)}) ` : ''}Novita panel`;
    drawIcon(running, hasTrouble);
}

function drawIcon(running, hasTrouble) {
    const icon = document.querySelector('link[rel=icon]');
    const look = `${running} ${hasTrouble}`;
    if (icon.dataset.shown === look) {
        return;
    }
    icon.dataset.shown = look;
    const canvas = document.createElement('canvas');
    canvas.width = 64;
    canvas.height = 64;
    const pen = canvas.getContext('2d');
    pen.fillStyle = hasTrouble ? '#b3231a' : running ? '#116238' : '#566072';
    pen.beginPath();
    pen.arc(32, 32, 32, 0, 2 * Math.PI);
    pen.fill();
    pen.fillStyle = '#fff';
    pen.font = 'bold 38px sans-serif';
    pen.textAlign = 'center';
    pen.textBaseline = 'middle';
    pen.fillText(running === null ? '?' : running > 99 ? '99' : String(running), 32, 35);
    icon.href = canvas.toDataURL();
}
