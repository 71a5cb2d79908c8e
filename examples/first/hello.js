// SPDX-License-Identifier: Apache-2.0
console.log(`JavaScript ${process.version}: ${[1, 2, 3].map((n) => n * n)}`);
