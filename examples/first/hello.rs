// SPDX-License-Identifier: Apache-2.0
fn main() {
    let total: u64 = (1..=10).product();
    println!("Rust: 10! = {total}");
}
