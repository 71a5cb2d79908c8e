// SPDX-License-Identifier: Apache-2.0
package main

import (
	"fmt"
	"runtime"
)

func main() {
	fmt.Println("Go", runtime.Version(), "on", runtime.GOOS)
}
