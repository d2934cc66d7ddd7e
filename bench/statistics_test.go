package main

import (
	"math/rand/v2"
	"testing"
)

// The bounds hold the true median about as often as they say.
func TestBoundsHoldTheMedian(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{10, 11, 21, 40} {
		const trials = 4000
		above, below := 0, 0
		for range trials {
			values := make([]float64, n)
			for i := range values {
				values[i] = random.ExpFloat64() // median: ln 2
			}
			e := estimateOf(values)
			if e.high < 0.6931471805599453 {
				above++
			}
			if e.low > 0.6931471805599453 {
				below++
			}
		}
		for side, missed := range map[string]int{"upper": above, "lower": below} {
			if share := float64(missed) / trials; share > 0.06 || share < 0.005 {
				t.Errorf("%d values: the %s bound misses the median in %.1f %% of the trials, want at most 5 %% and not never", n, side, 100*share)
			}
		}
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("median of 3, 1, 2 is %v", got)
	}
	if got := median([]float64{4, 1, 2, 3}); got != 2.5 {
		t.Errorf("median of 4, 1, 2, 3 is %v", got)
	}
}
