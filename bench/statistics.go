package main

import (
	"math"
	"slices"
)

// measurement is one load run against one proxy.
type measurement struct {
	Requests   int     `json:"requests"`
	PerSecond  float64 `json:"requests_per_second"`
	CPUMicros  float64 `json:"cpu_us_per_request"`
	P50Micros  float64 `json:"p50_us"`
	P99Micros  float64 `json:"p99_us"`
	MemoryByte int64   `json:"memory_bytes"`
}

func perSecond(m measurement) float64 { return m.PerSecond }
func cpuMicros(m measurement) float64 { return m.CPUMicros }
func p50Micros(m measurement) float64 { return m.P50Micros }
func p99Micros(m measurement) float64 { return m.P99Micros }
func memoryMiB(m measurement) float64 { return float64(m.MemoryByte) / (1 << 20) }

// series is the rounds of one scenario.
type series struct {
	Scenario string        `json:"scenario"`
	Rounds   []measurement `json:"rounds"`
}

func (s *series) values(of func(measurement) float64) []float64 {
	values := make([]float64, len(s.Rounds))
	for i, m := range s.Rounds {
		values[i] = of(m)
	}
	return values
}

func (s *series) median(of func(measurement) float64) float64 { return median(s.values(of)) }

// ratio compares with base round by round.
func (s *series) ratio(base *series, of func(measurement) float64) estimate {
	ratios := s.values(of)
	for i, b := range base.values(of) {
		ratios[i] /= b
	}
	return estimateOf(ratios)
}

// estimate is a median, and where it lies with 95 % certainty on either side.
type estimate struct{ median, low, high float64 }

// estimateOf bounds the median by order statistics, which assume nothing about
// the distribution: the number of values below the true median is binomial
// with p = 1/2. With fewer than five values the bounds are the extremes.
func estimateOf(values []float64) estimate {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	// The largest k for which P(at most k of n are below the median) <= 5 %.
	k, below := -1, 0.0
	for {
		below += math.Exp(logChoose(n, k+1) - float64(n)*math.Ln2)
		if below > 0.05 {
			break
		}
		k++
	}
	k = max(k, 0)
	return estimate{median(sorted), sorted[k], sorted[n-1-k]}
}

func logChoose(n, k int) float64 {
	gamma := func(x int) float64 { v, _ := math.Lgamma(float64(x + 1)); return v }
	return gamma(n) - gamma(k) - gamma(n-k)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
