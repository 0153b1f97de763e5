// What each page with a bar has: menus, and a login that may change in another tab.

import {watchMenus} from './menus.js';
import {watchLogin} from './session.js';

watchMenus();
watchLogin();
